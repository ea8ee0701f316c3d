"""The views of a model show in SQL what the ledger has about its predictions and canary steps."""

import uuid
from typing import Any

import msgspec
import pytest
from databases import Server
from samples import failed_attempt, prediction, spool
from sqlalchemy import make_url, text

from watchkeeper.core.events import Event, EventDetails, Promoted, RolledBack, StepFinished
from watchkeeper.core.record import Prediction
from watchkeeper.core.signature import Column, Output, Signature
from watchkeeper.ledger import Ledger, migrate
from watchkeeper.ledger.errors import LedgerError
from watchkeeper.ledger.events import emit
from watchkeeper.ledger.records import store_records
from watchkeeper.ledger.users import ensure_login
from watchkeeper.ledger.views import create_views, statements

SIGNATURE = Signature(
    inputs=(
        Column("type", "BYTES", categories=("L", "null", ""), nullable=False),
        Column("torque in 'Nm' 100%", "FP64", nullable=True),
        Column("time", "TIMESTAMP"),
        Column("count", "INT64"),
        Column("idle", "BOOL"),
    ),
    outputs=(
        Output("p", "FP64"),
        Output("failure", "INT64"),
        Output("risk_level", "BYTES", ("LOW", "HIGH")),
    ),
)
MODEL = "pump-failure"


def request(number: int, time: float = 0.0, rows: int = 1, **changes: Any) -> Prediction:
    """A request whose values differ in each row."""
    values = {
        "inputs": {
            "type": ["L", "null", ""][:rows],
            "torque in 'Nm' 100%": [0.1 + 0.2, None, -1e300][:rows],
            "time": [1.5, 2.5, 3.5][:rows],
            "count": [2**62 + 1, -1, 0][:rows],
            "idle": [True, False, True][:rows],
        },
        "outputs": {
            "p": [0.25, 0.5, 0.75][:rows],
            "failure": [0, 1, 1][:rows],
            "risk_level": ["LOW", "HIGH", "HIGH"][:rows],
        },
        "model": MODEL,
        "rows": rows,
        **changes,
    }
    return prediction(number, time, **values)


def store(ledger: Ledger, *batch: Prediction) -> None:
    store_records(ledger, batch, [], spool(1.0, model=MODEL))


def decide(ledger: Ledger, version: int, time: float, details: EventDetails) -> None:
    emit(ledger, Event(uuid.uuid4().hex, MODEL, version, time, "a reason", details))


def step(since: float, until: float, percent: int) -> StepFinished:
    return StepFinished(
        percent=percent, since=since, until=until, verdict="pass", observations={}, policy={}
    )


def read(ledger: Ledger, query: str) -> list[dict[str, Any]]:
    with ledger.read() as connection:
        return [dict(row._mapping) for row in connection.execute(text(query))]


def test_a_request_has_a_row_for_each_of_its_rows_with_the_values_of_all_columns(
    ledger: Ledger,
) -> None:
    create_views(ledger, MODEL, SIGNATURE)
    store(ledger, request(1, 7.0, rows=3, client="line-4", subject="press", latency=0.002))
    found = read(ledger, "SELECT * FROM pump_failure_predictions ORDER BY row_in_request")
    assert [row["row_in_request"] for row in found] == [0, 1, 2]
    shared = {
        "id": f"{1:032x}",
        "time": 7.0,
        "version": 1,
        "protocol": "http",
        "client": "line-4",
        "subject": "press",
        "latency": 0.002,
    }
    assert all(shared.items() <= row.items() for row in found)
    assert [row["type"] for row in found] == ["L", "null", ""]
    assert [row["torque in 'Nm' 100%"] for row in found] == [0.1 + 0.2, None, -1e300]
    assert [row["time_input"] for row in found] == [1.5, 2.5, 3.5]
    assert [row["count"] for row in found] == [2**62 + 1, -1, 0]
    assert [bool(row["idle"]) for row in found] == [True, False, True]
    assert [row["p"] for row in found] == [0.25, 0.5, 0.75]
    assert [row["failure"] for row in found] == [0, 1, 1]
    assert [row["risk_level"] for row in found] == ["LOW", "HIGH", "HIGH"]


def test_only_answered_requests_of_the_model_are_shown(ledger: Ledger) -> None:
    create_views(ledger, MODEL, SIGNATURE)
    refused = request(2, rows=0, status="INVALID_ARGUMENT", error="no", inputs={}, outputs={})
    store(ledger, request(1), refused)
    store(ledger, request(3, model="other"))
    found = read(ledger, "SELECT id FROM pump_failure_predictions")
    assert [row["id"] for row in found] == [f"{1:032x}"]


def test_the_alias_is_that_of_the_time_of_the_request(ledger: Ledger) -> None:
    create_views(ledger, MODEL, SIGNATURE)
    decide(ledger, 1, 10.0, Promoted())
    decide(ledger, 2, 30.0, Promoted(replaces=1))
    decide(ledger, 2, 50.0, RolledBack(to=1, percent=100))
    decide(ledger, 3, 70.0, RolledBack(to=1, percent=10))
    moments = [(5, 1), (20, 1), (25, 2), (30, 2), (40, 1), (55, 1), (55, 2), (75, 3), (75, 1)]
    store(
        ledger,
        *(
            request(number, float(time), version=version)
            for number, (time, version) in enumerate(moments)
        ),
    )
    found = read(ledger, "SELECT alias FROM pump_failure_predictions ORDER BY id")
    serving = [False, True, False, True, False, True, False, False, True]
    assert [row["alias"] == "production" for row in found] == serving
    assert {row["alias"] for row in found} == {"production", "candidate"}


def test_a_canary_step_compares_both_versions_in_its_window(ledger: Ledger) -> None:
    create_views(ledger, MODEL, SIGNATURE)
    decide(ledger, 1, 1.0, Promoted())
    decide(ledger, 2, 20.0, step(10.0, 20.0, 25))
    decide(ledger, 2, 30.0, step(20.0, 30.0, 50))
    decide(ledger, 2, 30.0, Promoted(replaces=1))
    repeated = request(7, 12.0)
    attempt = msgspec.structs.replace(failed_attempt(repeated), latency=0.5)
    store(
        ledger,
        request(1, 9.0),
        *(request(number, 10.0 + number, rows=2) for number in (2, 3)),
        request(4, 11.0, version=2, rows=3),
        request(5, 12.0, version=2, status="INTERNAL", rows=0, inputs={}, outputs={}, latency=0.3),
        request(6, 12.0, synthetic=True),
        attempt,
        repeated,
        request(8, 25.0, version=2),
    )
    found = read(ledger, "SELECT * FROM pump_failure_canary_steps ORDER BY since, side")
    assert [(row["percent"], row["side"], row["version"]) for row in found] == [
        (25, "canary", 2),
        (25, "stable", 1),
        (50, "canary", 2),
    ]
    canary, stable, last = found
    assert {row["canary"] for row in found} == {2}
    assert (canary["since"], canary["until"], canary["verdict"]) == (10.0, 20.0, "pass")
    assert (canary["requests"], canary["errors"]) == (3, 2), "the attempt that was repeated counts"
    assert canary["mean_latency"] == pytest.approx((0.001 + 0.3 + 0.5) / 3)
    assert (canary["mean_p"], float(canary["mean_failure"])) == (0.5, pytest.approx(2 / 3))
    assert (stable["requests"], stable["errors"]) == (3, 0)
    assert stable["mean_p"] == pytest.approx((0.25 * 3 + 0.5 * 2) / 5)
    assert (last["requests"], last["mean_p"]) == (1, 0.25)


def test_columns_with_the_names_of_others_are_shown_under_another_name(ledger: Ledger) -> None:
    names = ("ID", "time", "Time_Input", "alias")
    signature = Signature(
        inputs=tuple(Column(name, "FP64") for name in names),
        outputs=(Output("latency", "FP64"), Output("id", "FP64")),
    )
    create_views(ledger, MODEL, signature)
    decide(ledger, 2, 20.0, step(0.0, 20.0, 25))
    inputs = {name: [float(number)] for number, name in enumerate(names)}
    outputs = {"latency": [8.0], "id": [9.0]}
    store(ledger, request(1, 5.0, version=2, inputs=inputs, outputs=outputs))
    (row,) = read(ledger, "SELECT * FROM pump_failure_predictions")
    assert (row["id"], row["time"], row["latency"]) == (f"{1:032x}", 5.0, 0.001)
    shown = ("ID_input", "time_input", "Time_Input_input", "alias_input")
    assert [row[name] for name in shown] == [0.0, 1.0, 2.0, 3.0]
    assert (row["latency_output"], row["id_output"]) == (8.0, 9.0)
    (canary,) = read(ledger, "SELECT * FROM pump_failure_canary_steps")
    assert (canary["mean_latency"], canary["mean_latency_output"]) == (0.001, 8.0)


def test_views_are_replaced_by_those_of_another_signature(ledger: Ledger) -> None:
    create_views(ledger, MODEL, SIGNATURE)
    store(ledger, request(1))
    fewer = msgspec.structs.replace(SIGNATURE, inputs=SIGNATURE.inputs[:1])
    for signature in (fewer, fewer, SIGNATURE):
        create_views(ledger, MODEL, signature)
        (row,) = read(ledger, "SELECT * FROM pump_failure_predictions")
        assert ("count" in row) == (signature is SIGNATURE)


def test_the_printed_statements_are_those_that_create_the_views(ledger: Ledger) -> None:
    migrated = statements(ledger, MODEL, SIGNATURE)
    assert [each.split()[0] for each in migrated] == ["DROP", "DROP", "CREATE", "CREATE"]
    assert all("%%" not in each for each in migrated)
    connection: Any = ledger.engine.raw_connection()
    try:
        cursor = connection.cursor()
        for each in migrated:
            cursor.execute(each)
        connection.commit()
    finally:
        connection.close()
    store(ledger, request(1))
    assert read(ledger, "SELECT p FROM pump_failure_predictions") == [{"p": 0.25}]


def test_readers_of_a_view_need_no_right_on_the_tables(server: Server) -> None:
    owner = server.create()
    migrate(owner)
    name = f"analyst-{uuid.uuid4().hex[:6]}"
    url = make_url(owner).set(username=name, password="a password").render_as_string(False)
    opened, analyst = Ledger(owner), Ledger(url)
    try:
        create_views(opened, MODEL, SIGNATURE)
        store(opened, request(1))
        quote = opened.engine.dialect.identifier_preparer.quote_identifier
        user = f"'{name}'" if server.kind == "mariadb" else quote(name)
        with opened.write() as connection:
            ensure_login(connection, url)
            connection.exec_driver_sql(f"GRANT SELECT ON pump_failure_predictions TO {user}")
        assert read(analyst, "SELECT p FROM pump_failure_predictions") == [{"p": 0.25}]
        with pytest.raises(LedgerError, match=r"denied"):
            read(analyst, "SELECT * FROM predictions")
    finally:
        opened.close()
        analyst.close()
