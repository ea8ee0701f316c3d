"""Views for people who ask the ledger in SQL: the predictions of a model, and its canary steps.

The ledger stores the columns of a request as lists in JSON, so that one table serves all models.
The view ``<model>_predictions`` has one row for each row of a request, and one column for each
input and output. The view ``<model>_canary_steps`` compares canary and stable in each step of a
rollout.

A view reads with the rights of whoever has created it, so its readers need none on the tables.
"""

from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from watchkeeper.core.events import Promoted, RolledBack, StepFinished, kind_of
from watchkeeper.core.record import OK
from watchkeeper.core.signature import Datatype, Signature
from watchkeeper.ledger import tables as t
from watchkeeper.ledger.database import Ledger

_TYPES: Final[Mapping[Datatype, Any]] = {
    "FP64": sa.Double(),
    "FP32": sa.Double(),
    "INT64": sa.BigInteger(),
    "INT32": sa.BigInteger(),
    "BOOL": sa.Boolean(),
    "BYTES": sa.Text(),
    "TIMESTAMP": sa.Double(),  # seconds since 1970, as all times of the ledger
}
# The columns of a view about a whole request.
_OF_REQUEST: Final = (
    "id",
    "time",
    "version",
    "protocol",
    "client",
    "subject",
    "synthetic",
    "latency",
)


def statements(ledger: Ledger, model: str, signature: Signature) -> list[str]:
    """Return the statements that create the views of a model, or replace them.

    An input or output with the name of another column of the view gets ``_input`` or ``_output``
    behind its name.

    Args:
        ledger: the ledger; its kind of database decides the form. Nothing is read.
        model: the name of the model.
        signature: of the version in production.
    """
    for_driver = _statements(ledger.engine.dialect, model, signature)
    # These drivers read a single % as the beginning of a placeholder.
    is_doubled = ledger.engine.dialect.paramstyle in ("format", "pyformat")
    return [each.replace("%%", "%") if is_doubled else each for each in for_driver]


def create_views(ledger: Ledger, model: str, signature: Signature) -> None:
    """Create the views of a model, or replace them; the arguments are those of :func:`statements`.

    Raises:
        LedgerError: the database does not answer, or the user may not create views.
    """
    with ledger.write() as connection:
        for statement in _statements(ledger.engine.dialect, model, signature):
            connection.exec_driver_sql(statement)


def _statements(dialect: sa.Dialect, model: str, signature: Signature) -> list[str]:
    prefix = model.replace("-", "_")
    names = f"{prefix}_predictions", f"{prefix}_canary_steps"
    predictions = _predictions(dialect.name, model, signature)
    shown = sa.table(names[0], *(sa.column(each.name) for each in predictions.selected_columns))
    queries = (predictions, _canary_steps(model, shown, signature))
    return [
        # A view that exists is not replaced: PostgreSQL refuses another list of columns.
        *(f"DROP VIEW IF EXISTS {name}" for name in reversed(names)),
        *(_create(dialect, *each) for each in zip(names, queries, strict=True)),
    ]


def _create(dialect: sa.Dialect, name: str, query: sa.Select[Any]) -> str:
    text = query.compile(dialect=dialect, compile_kwargs={"literal_binds": True})
    # Otherwise PostgreSQL may call a function of a reader with rows that the view leaves out.
    barrier = " WITH (security_barrier)" if dialect.name == "postgresql" else ""
    return f"CREATE VIEW {name}{barrier} AS\n{text}"


def _predictions(kind: str, model: str, signature: Signature) -> sa.Select[Any]:
    p = t.predictions.c
    rows = _Keys(p.outputs, signature.outputs[0].name).table_valued("key", name="rows_of_request")
    # PostgreSQL has no name for the column, and MySQL counts from 1.
    rows = rows.render_derived() if kind == "postgresql" else rows
    place = rows.c.key - 1 if kind in ("mysql", "mariadb") else rows.c.key
    production = _production(model, p.time).correlate(t.predictions).scalar_subquery()
    columns: dict[str, sa.ColumnElement[Any]] = {each: p[each] for each in _OF_REQUEST}
    columns["row_in_request"] = place
    columns["alias"] = sa.case((p.version == production, "production"), else_="candidate")
    names = _names(signature)
    for document, part, described in (
        (p.inputs, "input", signature.inputs),
        (p.outputs, "output", signature.outputs),
    ):
        for each in described:
            value = _Element(document, each.name, place, each.datatype)
            columns[names[part, each.name]] = value
    return sa.select(*(column.label(name) for name, column in columns.items())).where(
        p.model == model, p.status == OK
    )


def _names(signature: Signature) -> dict[tuple[str, str], str]:
    """Return the name of the column for each input and output, by its part and its own name.

    MySQL and SQLite do not distinguish upper and lower case in names of columns.
    """
    taken = {*_OF_REQUEST, "row_in_request", "alias"}
    found: dict[tuple[str, str], str] = {}
    for part, described in (("input", signature.inputs), ("output", signature.outputs)):
        for each in described:
            name = each.name
            while name.casefold() in taken:
                name = f"{name}_{part}"
            taken.add(name.casefold())
            found[part, each.name] = name
    return found


def _canary_steps(model: str, predicted: sa.TableClause, signature: Signature) -> sa.Select[Any]:
    """Return requests, errors, latency and mean scores of both versions in each step."""
    e = t.events.c
    stable = _production(model, e.time, before=True).correlate(t.events).scalar_subquery()
    steps = (
        sa.select(
            e.id.label("step"),
            e.version.label("canary"),
            stable.label("stable"),
            *(e.details[name].as_float().label(name) for name in ("since", "until", "percent")),
            e.details["verdict"].as_string().label("verdict"),
        )
        .where(e.model == model, e.kind == kind_of(StepFinished))
        .cte("steps")
    )

    def in_step(time: Any, version: Any) -> Any:
        return sa.and_(
            time >= steps.c.since,
            time < steps.c.until,
            version.in_((steps.c.canary, steps.c.stable)),
        )

    # An attempt that the gateway has repeated elsewhere counts for the version that has failed.
    attempts = sa.union_all(
        *(
            sa.select(table.c.version, table.c.time, table.c.latency, table.c.status).where(
                table.c.model == model, *no_synthetic
            )
            for table, no_synthetic in (
                (t.predictions, [_is_false(t.predictions.c.synthetic)]),
                (t.superseded, []),
            )
        )
    ).subquery("attempts")
    a = attempts.c
    counted = (
        sa.select(
            steps.c.step,
            a.version,
            sa.func.count().label("requests"),
            sa.func.sum(sa.case((a.status == OK, 0), else_=1)).label("errors"),
            sa.func.avg(a.latency).label("mean_latency"),
        )
        .join_from(steps, attempts, in_step(a.time, a.version))
        .group_by(steps.c.step, a.version)
        .subquery("counted")
    )
    p = predicted.c
    names = _names(signature)
    numbers = [
        names["output", each.name]
        for each in signature.outputs
        if each.datatype in ("FP64", "INT64")
    ]
    means = (
        sa.select(
            steps.c.step,
            p.version,
            # Without the product, MariaDB gives the mean of integers four decimals.
            *(
                sa.func.avg(p[name] * sa.literal_column("1e0")).label(f"mean_{name}")
                for name in numbers
            ),
        )
        .join_from(steps, predicted, sa.and_(in_step(p.time, p.version), _is_false(p.synthetic)))
        .group_by(steps.c.step, p.version)
        .subquery("means")
    )
    side = sa.case((counted.c.version == steps.c.canary, "canary"), else_="stable")
    both = sa.and_(means.c.step == counted.c.step, means.c.version == counted.c.version)
    return (
        sa.select(
            steps.c.canary,
            steps.c.percent,
            steps.c.since,
            steps.c.until,
            steps.c.verdict,
            side.label("side"),
            *(counted.c[each] for each in ("version", "requests", "errors", "mean_latency")),
            *(column for column in means.c if column.name not in ("step", "version")),
        )
        .join_from(steps, counted, counted.c.step == steps.c.step)
        .outerjoin(means, both)
    )


def _is_false(column: Any) -> Any:
    return column == sa.false()


def _production(model: str, time: Any, *, before: bool = False) -> sa.Select[Any]:
    """Return a query for the version that was in production at a time, or just before it."""
    e = t.events.alias("decision").c
    promoted, rolled_back = kind_of(Promoted), kind_of(RolledBack)
    version = sa.case((e.kind == promoted, e.version), else_=e.details["to"].as_integer())
    return (
        sa.select(version)
        .where(
            e.model == model,
            e.kind.in_((promoted, rolled_back)),
            e.time < time if before else e.time <= time,
        )
        # A rollback and the promotion after it may have the same time.
        .order_by(e.time.desc(), sa.case((e.kind == promoted, 0), else_=1))
        .limit(1)
    )


class _Keys(FunctionElement[int]):
    """The keys of the list ``name`` of a JSON document, as a table with the column ``key``."""

    inherit_cache = False
    type = sa.Integer()

    def __init__(self, document: Any, name: str) -> None:
        super().__init__(document)
        self.member = name


class _Element(FunctionElement[Any]):
    """One value of the list ``name`` of a JSON document, by its key; JSON null is NULL."""

    inherit_cache = False

    def __init__(self, document: Any, name: str, key: Any, datatype: Datatype) -> None:
        super().__init__(document, key)
        self.member, self.datatype, self.type = name, datatype, _TYPES[datatype]


@compiles(_Keys, "sqlite")
def _keys_of_sqlite(element: _Keys, compiler: SQLCompiler, **options: Any) -> str:
    return f"json_each({_arguments(element, compiler, options)}, {_path(element, compiler)})"


@compiles(_Keys, "postgresql")
def _keys_of_postgresql(element: _Keys, compiler: SQLCompiler, **options: Any) -> str:
    values = f"{_arguments(element, compiler, options)} -> {_text(element.member, compiler)}"
    return f"generate_series(0, json_array_length({values}) - 1)"


@compiles(_Keys, "mysql", "mariadb")
def _keys_of_mysql(element: _Keys, compiler: SQLCompiler, **options: Any) -> str:
    path = _path(element, compiler, "[*]")
    return (
        f"JSON_TABLE({_arguments(element, compiler, options)}, {path} "
        "COLUMNS (`key` FOR ORDINALITY))"
    )


@compiles(_Element, "sqlite")
def _element_of_sqlite(element: _Element, compiler: SQLCompiler, **options: Any) -> str:
    document, key = (compiler.process(each, **options) for each in element.clauses)
    path = f"{_path(element, compiler, '[')} || {key} || ']'"
    return f"json_extract({document}, {path})"


@compiles(_Element, "postgresql")
def _element_of_postgresql(element: _Element, compiler: SQLCompiler, **options: Any) -> str:
    document, key = (compiler.process(each, **options) for each in element.clauses)
    value = f"{document} -> {_text(element.member, compiler)} ->> {key}"
    return f"CAST({value} AS {compiler.dialect.type_compiler_instance.process(element.type)})"


@compiles(_Element, "mysql", "mariadb")
def _element_of_mysql(element: _Element, compiler: SQLCompiler, **options: Any) -> str:
    document, key = (compiler.process(each, **options) for each in element.clauses)
    path = f"CONCAT({_path(element, compiler, '[')}, {key}, ']')"
    found = f"JSON_EXTRACT({document}, {path})"
    text = f"JSON_UNQUOTE({found})"
    value = {"BYTES": text, "BOOL": f"{text} = 'true'"}.get(
        element.datatype,
        f"CAST({text} AS {'SIGNED' if element.datatype.startswith('INT') else 'DOUBLE'})",
    )
    return f"CASE WHEN JSON_TYPE({found}) = 'NULL' THEN NULL ELSE {value} END"


def _arguments(element: FunctionElement[Any], compiler: SQLCompiler, options: Any) -> str:
    (document,) = element.clauses
    return compiler.process(document, **options)


def _path(element: _Keys | _Element, compiler: SQLCompiler, end: str = "") -> str:
    """Return the JSON path of the list as a literal of SQL."""
    escaped = element.member.replace("\\", "\\\\").replace('"', '\\"')
    return _text(f'$."{escaped}"{end}', compiler)


def _text(value: str, compiler: SQLCompiler) -> str:
    return compiler.render_literal_value(value, sa.String())
