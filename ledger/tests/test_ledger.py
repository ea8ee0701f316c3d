"""The ledger stores each record once, in any order of arrival and after any number of tries."""

import itertools
import random
import tracemalloc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
from databases import Server
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import FAILED, RUL
from sqlalchemy import Column, Index, MetaData, Row, Table, func, insert, inspect, select

from watchkeeper.core.drift_report import DriftReport, FeatureReport, ReportWindow
from watchkeeper.core.events import Event, LabelContradicted, Promoted, Watched
from watchkeeper.core.record import OK, LabelRecord, Prediction
from watchkeeper.core.settings import SettingsError
from watchkeeper.ledger import Ledger, migrate, tables
from watchkeeper.ledger.counts import count_labelled_rows, count_labels
from watchkeeper.ledger.episodes import (
    Attempt,
    Episode,
    attempts,
    episodes,
    save_attempt,
    save_episode,
)
from watchkeeper.ledger.events import emit, history, production_version
from watchkeeper.ledger.labels import store_labels
from watchkeeper.ledger.observations import labelled_rows, observations, time_of_row
from watchkeeper.ledger.predictions import store_predictions
from watchkeeper.ledger.records import store_records
from watchkeeper.ledger.reports import reports, save_report
from watchkeeper.ledger.spools import SpoolState, shipped_until

X = FeatureReport(
    name="x",
    kind="numeric",
    test="ks",
    statistic=0.5,
    p_value=0.0,
    effect_size=0.5,
    reference_threshold=0.2,
    z=1.0,
    baseline={"mean": 0.0, "std": 1.0},
    window={"mean": 1.0, "std": 1.0},
    drifted=True,
)


def prediction(number: int, **changes: object) -> Prediction:
    made = Prediction(
        id=f"{number:032x}",
        attempt=1,
        model="m",
        version=1,
        protocol="http",
        client="test",
        time=1000.0 + number,
        latency=0.001,
        status=OK,
        rows=2,
        inputs={"x": [1.0, 2.0]},
        outputs={"p": [0.1, 0.2]},
    )
    return msgspec.structs.replace(made, **changes)


def label(
    number: int, row: int = 0, value: float = 1.0, time: float = 5000.0, name: str = ""
) -> LabelRecord:
    return LabelRecord(f"{number:032x}", row, "m", 1, value, time, "test", name)


def without_name(one: LabelRecord) -> dict[str, Any]:
    return {key: value for key, value in msgspec.structs.asdict(one).items() if key != "name"}


def spool(name: str = "s", until: float = 9999.0, **changes: object) -> SpoolState:
    return msgspec.structs.replace(SpoolState(name, "m", 1, until), **changes)


def test_migrations_create_the_tables_of_the_code_and_can_be_repeated(database_url: str) -> None:
    migrate(database_url)
    migrate(database_url)
    ledger = Ledger(database_url)
    found = inspect(ledger.engine)
    assert {*found.get_table_names()} == {*tables.metadata.tables, "alembic_version"}
    for table in tables.metadata.sorted_tables:
        assert {c["name"] for c in found.get_columns(table.name)} == {c.name for c in table.columns}
        assert {i["name"] for i in found.get_indexes(table.name)} == {i.name for i in table.indexes}
        assert {c["name"]: c["nullable"] for c in found.get_columns(table.name)} == {
            c.name: c.nullable for c in table.columns
        }
        key = found.get_pk_constraint(table.name)["constrained_columns"]
        assert key == [c.name for c in table.primary_key]
    ledger.close()


def test_labels_of_a_release_without_names_survive_the_migration(database_url: str) -> None:
    migrate(database_url)
    ledger = Ledger(database_url)
    with ledger.write() as connection:
        tables.labels.drop(connection)
        before = Table(
            "labels",
            MetaData(),
            *(
                Column(c.name, c.type, primary_key=c.primary_key, nullable=c.nullable)
                for c in tables.labels.columns
                if c.name != "name"
            ),
            *(Index(i.name, *(c.name for c in i.columns)) for i in tables.labels.indexes),
        )
        before.create(connection)
        connection.execute(insert(before), without_name(label(1)))
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0005'")
    migrate(database_url)
    store_records(ledger, [prediction(1)], [label(1, value=57.0, name="rul")], spool())
    assert [row.label for row in labelled_rows(ledger, "m", since=0.0, truth=FAILED)] == [1.0]
    assert [row.label for row in labelled_rows(ledger, "m", since=0.0, truth=RUL)] == [57.0]
    with ledger.write() as connection:  # as that release does, which goes on until it is replaced
        connection.execute(insert(before), without_name(label(2)))
    assert count_labels(ledger, "m") == 3
    found = inspect(ledger.engine)
    assert found.get_pk_constraint("labels")["constrained_columns"] == ["prediction", "row", "name"]
    assert {i["name"] for i in found.get_indexes("labels")} == {
        i.name for i in tables.labels.indexes
    }
    ledger.close()


def test_a_migration_killed_between_two_tables_is_completed(database_url: str) -> None:
    migrate(database_url)
    ledger = Ledger(database_url)
    with ledger.write() as connection:
        tables.gaps.drop(connection)
        tables.labels.drop(connection)
        connection.exec_driver_sql("DELETE FROM alembic_version")  # not yet said to be done
    migrate(database_url)
    store_records(ledger, [prediction(1)], [label(1)], spool())
    assert count_labelled_rows(ledger, "m", since=0.0, truth=FAILED)[1][1.0] == 1
    assert inspect(ledger.engine).has_table("gaps")
    ledger.close()


@pytest.mark.parametrize(
    "url",
    ["mssql+pyodbc://me:secret@host/db", "oracle://host", "mysql://me:secret@host/db", "host", ""],
)
def test_unsupported_databases_are_refused_with_the_supported_ones(url: str) -> None:
    for opening in (Ledger, migrate):
        with pytest.raises(
            SettingsError, match=r"sqlite:///.*postgresql.psycopg.*pymysql"
        ) as raised:
            opening(url)
        assert "secret" not in str(raised.value)


def test_other_schemes_of_postgresql_and_mariadb_work(server: Server) -> None:
    other = {"postgresql+psycopg": "postgresql", "mysql+pymysql": "mariadb+pymysql"}
    name, rest = server.create().split(":", 1)
    migrate(f"{other[name]}:{rest}")
    ledger = Ledger(f"{other[name]}:{rest}")
    store_records(ledger, [prediction(1)], [label(1)], spool())
    assert count_labelled_rows(ledger, "m", since=0.0, truth=FAILED)[1][1.0] == 1
    ledger.close()


def test_a_batch_shipped_twice_is_stored_once(ledger: Ledger) -> None:
    batch = [prediction(n) for n in range(450)]
    store_records(ledger, batch, [label(1)], spool())
    store_records(ledger, batch, [label(1)], spool())
    assert observations(ledger, "m", 1, since=0.0) == observations(ledger, "m", 1, since=0.0)
    assert len(observations(ledger, "m", 1, since=0.0)) == 450
    assert count_labelled_rows(ledger, "m", since=0.0, truth=FAILED)[1][1.0] == 1


@settings(max_examples=20, deadline=None)
@given(st.permutations([(1, "UNAVAILABLE"), (2, OK), (3, OK), (4, "UNAVAILABLE")]), st.booleans())
def test_the_last_answered_attempt_becomes_the_prediction(
    tmp_path_factory: pytest.TempPathFactory, tries: list[tuple[int, str]], together: bool
) -> None:
    url = f"sqlite:///{tmp_path_factory.mktemp('ledger')}/ledger.db"
    migrate(url)
    ledger = Ledger(url)
    batch = [prediction(7, attempt=a, status=s, version=a) for a, s in tries]
    for part in [batch] if together else [[p] for p in batch]:
        store_records(ledger, part, [], spool())
    with ledger.read() as connection:
        (row,) = connection.execute(select(tables.predictions)).all()
    assert (row.attempt, row.status, row.version) == (3, OK, 3)
    ledger.close()


@settings(max_examples=15, deadline=None)
@given(st.permutations([(1, 2), (2, 1), (3, 2)]), st.booleans())
def test_superseded_attempts_are_stored_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, tries: list[tuple[int, int]], together: bool
) -> None:
    url = f"sqlite:///{tmp_path_factory.mktemp('ledger')}/ledger.db"
    migrate(url)
    ledger = Ledger(url)
    batch = [
        prediction(7, attempt=a, version=v, status=OK if a == 2 else "UNAVAILABLE")
        for a, v in tries
    ]
    for part in [batch, batch] if together else [[p] for p in batch + batch]:
        store_records(ledger, part, [], spool())

    def seen(version: int, hidden: bool) -> list[tuple[int, str]]:
        found = observations(ledger, "m", version, since=0.0, superseded=hidden)
        return [(o.attempt, o.status) for o in found]

    assert (seen(1, hidden=True), seen(2, hidden=False)) == ([(2, OK)], [])
    assert seen(2, hidden=True) == [(1, "UNAVAILABLE"), (3, "UNAVAILABLE")]
    ledger.close()


def test_a_later_label_replaces_another_value_and_writes_an_event(ledger: Ledger) -> None:
    store_records(ledger, [prediction(1)], [label(1, value=1.0, time=10.0)], spool())
    store_records(ledger, [], [label(1, value=1.0, time=11.0)], spool())
    assert history(ledger, "m") == []
    store_records(ledger, [], [label(1, value=0.0, time=12.0)], spool())
    store_records(ledger, [], [label(1, value=2.0, time=9.0)], spool())
    for shipped_again in (1.0, 10.0), (0.0, 12.0), (2.0, 9.0):
        store_records(
            ledger, [], [label(1, value=shipped_again[0], time=shipped_again[1])], spool()
        )
    assert [row.label for row in labelled_rows(ledger, "m", since=0.0)] == [0.0]
    assert [e.kind for e in history(ledger, "m")] == ["label-contradicted"] * 2


WORDS = [(0.0, 10.0), (1.0, 10.0), (1.0, 11.0), (0.0, 12.0), (1.0, 12.0), (0.0, 13.0), (1.0, 9.0)]
NUMBERS = itertools.count(1000)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=9).flatmap(
        lambda said: st.tuples(st.just(said), st.permutations(said), st.integers(1, 4))
    )
)
def test_the_final_label_does_not_depend_on_the_order_of_arrival(
    ledger: Ledger, story: tuple[list[tuple[float, float]], list[tuple[float, float]], int]
) -> None:
    said, arrived, size = story
    number = next(NUMBERS)
    lines = [label(number, value=value, time=time) for value, time in arrived]
    batches = [lines[n : n + size] for n in range(0, len(lines), size)]
    for batch in (*batches, *batches):
        store_records(ledger, [], batch, spool())
    stood = next(row for row in stored_labels(ledger) if row.prediction == f"{number:032x}")
    assert (stood.time, stood.value) == max((time, value) for value, time in said)
    events = [e for e in history(ledger, "m", limit=10_000) if e.id.startswith(stood.prediction)]
    assert {e.id.rpartition("/")[2] for e in events} >= {repr(v) for v, _ in said} - {
        repr(stood.value)
    }
    assert len(events) <= len({value for value, _ in said})


def stored_labels(ledger: Ledger) -> Sequence[Row[Any]]:
    with ledger.read() as connection:
        return connection.execute(select(tables.labels)).all()


def test_a_concurrent_later_label_is_not_replaced_by_an_earlier_one(
    server: Server,
) -> None:
    url = server.create()
    migrate(url)
    ledger = Ledger(url)
    store_records(ledger, [prediction(1)], [label(1, value=0.0, time=10.0)], spool())
    with ThreadPoolExecutor(1) as pool:
        with ledger.write() as connection:
            store_labels(connection, [label(1, value=2.0, time=12.0)])
            slow = pool.submit(
                store_records, ledger, [], [label(1, value=1.0, time=11.0)], spool("other")
            )
            with pytest.raises(TimeoutError):
                slow.result(2.0)  # it waits for this transaction
        slow.result(60.0)
    assert [(row.value, row.time) for row in stored_labels(ledger)] == [(2.0, 12.0)]
    ledger.close()


def test_concurrent_labels_for_the_same_rows_leave_the_latest(
    ledger: Ledger, database_url: str
) -> None:
    other = Ledger(database_url)
    labels = [
        label(n, row=row, value=float(time % 2), time=float(time))
        for n in range(5)
        for row in range(2)
        for time in range(1, 9)
    ]

    def write(part: tuple[Ledger, int]) -> None:
        mine = labels[part[1] :: 2]
        random.Random(part[1]).shuffle(mine)
        for start in range(0, len(mine), 4):
            store_records(part[0], [], mine[start : start + 4], spool(str(part[1])))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, ((ledger, 0), (other, 1))))
    other.close()
    assert [(row.value, row.time) for row in stored_labels(ledger)] == [(0.0, 8.0)] * 10


def test_labelled_rows_of_large_requests_are_read_in_parts(ledger: Ledger) -> None:
    rows, requests = 1024, 12
    wide = {name: [f"{name}{n:060}" for n in range(rows)] for name in "abcd"}
    for number in range(requests):
        sent = prediction(number, rows=rows, inputs=wide, outputs={"p": [0.5] * rows})
        store_records(ledger, [sent], [label(number, row=row) for row in range(rows)], spool())
    one = len(msgspec.json.encode(wide))  # some 260 kB; once for each label it would be 3 GB
    tracemalloc.start()
    found = labelled_rows(ledger, "m", since=0.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == rows * requests
    assert found == sorted(found, key=lambda row: (row.time, row.row))
    assert {row.inputs["a"] for row in found} == {*wide["a"]}
    assert peak < 10 * requests * one
    newest = labelled_rows(ledger, "m", since=0.0, limit=1500)
    assert newest == found[-1500:]


def test_labels_that_are_no_outcome_are_neither_read_nor_counted(ledger: Ledger) -> None:
    wrong = (92.5, -1.0, 0.5, 1e308, -1e308)
    sent = [prediction(number, rows=1) for number in range(len(wrong) + 3)]
    values = (1.0, 0.0, 1.0, *wrong)
    store_records(ledger, sent, [label(n, value=v) for n, v in enumerate(values)], spool())
    found = labelled_rows(ledger, "m", since=0.0, truth=FAILED)
    assert [row.label for row in found] == [1.0, 0.0, 1.0]
    newest = labelled_rows(ledger, "m", since=0.0, limit=2, truth=FAILED)
    assert [row.label for row in newest] == [0.0, 1.0]
    counted = count_labelled_rows(ledger, "m", since=0.0, truth=FAILED)
    assert counted == (3, {0.0: 1, 1.0: 2})
    assert count_labelled_rows(ledger, "m", since=0.0) == (8, {})
    assert count_labels(ledger, "m") == 8


def test_a_row_has_one_label_for_each_of_its_truths(ledger: Ledger) -> None:
    both = [label(1, value=1.0, name="failed"), label(1, value=57.0, name="rul")]
    store_records(ledger, [prediction(1)], both, spool())
    store_records(ledger, [prediction(2)], [label(2, value=12.0, name="rul")], spool())
    assert [row.label for row in labelled_rows(ledger, "m", since=0.0, truth=FAILED)] == [1.0]
    assert [row.label for row in labelled_rows(ledger, "m", since=0.0, truth=RUL)] == [57.0, 12.0]
    assert count_labelled_rows(ledger, "m", since=0.0, truth=FAILED) == (1, {1.0: 1})
    assert count_labelled_rows(ledger, "m", since=0.0, truth=RUL) == (2, {})
    assert count_labels(ledger, "m") == 3


def test_labels_contradict_each_other_only_about_the_same_truth(ledger: Ledger) -> None:
    store_records(ledger, [prediction(1)], [label(1, value=1.0, name="failed")], spool())
    store_records(ledger, [], [label(1, value=57.0, name="rul")], spool())
    assert not history(ledger, "m")
    store_records(ledger, [], [label(1, value=58.0, time=9999.0, name="rul")], spool())
    (event,) = history(ledger, "m")
    assert event.details == LabelContradicted(
        prediction=event.id.split("/")[0], row=0, client="test", name="rul"
    )
    assert "57 and 58 of 'rul'" in event.reason


def test_a_label_of_a_release_without_names_counts_until_one_with_a_name_arrives(
    ledger: Ledger,
) -> None:
    store_records(ledger, [prediction(1)], [label(1, value=0.0)], spool())
    assert [row.label for row in labelled_rows(ledger, "m", since=0.0, truth=FAILED)] == [0.0]
    assert not labelled_rows(ledger, "m", since=0.0, truth=RUL)
    store_records(ledger, [], [label(1, value=1.0, name="failed")], spool())
    assert [row.label for row in labelled_rows(ledger, "m", since=0.0, truth=FAILED)] == [1.0]


def test_labels_join_their_own_row_and_nonexistent_rows_are_ignored(ledger: Ledger) -> None:
    store_records(ledger, [prediction(1)], [label(1, row=1), label(1, row=7), label(2)], spool())
    (row,) = labelled_rows(ledger, "m", since=0.0)
    assert (row.row, row.inputs, row.outputs, row.label) == (1, {"x": 2.0}, {"p": 0.2}, 1.0)
    assert count_labelled_rows(ledger, "m", since=0.0, truth=FAILED)[1][1.0] == 1


def test_windows_are_half_open_and_in_order(ledger: Ledger) -> None:
    store_records(
        ledger, [prediction(n) for n in random.Random(1).sample(range(20), 20)], [], spool()
    )
    times = [o.time for o in observations(ledger, "m", 1, since=1005.0, until=1010.0)]
    assert times == [1005.0, 1006.0, 1007.0, 1008.0, 1009.0]
    assert [o.time for o in observations(ledger, "m", 1, since=0, limit=2)] == [1018.0, 1019.0]


def test_rows_count_from_both_ends_and_a_refused_request_is_one(
    ledger: Ledger,
) -> None:
    refused = prediction(3, status="INVALID", rows=0, inputs={}, outputs={})
    made = [*(prediction(n, rows=n) for n in (1, 2, 4, 5)), refused, prediction(6, version=2)]
    store_records(ledger, made, [], spool())

    def reached(rows: int, **bounds: Any) -> float | None:
        return time_of_row(ledger, "m", 1, rows, **bounds)

    assert [reached(rows) for rows in (1, 2, 4, 5, 8, 9)] == [
        *(1001.0, 1002.0, 1003.0, 1004.0, 1004.0, 1005.0)
    ]
    assert [reached(rows, newest_first=True) for rows in (1, 5, 6, 10, 13)] == [
        *(1005.0, 1005.0, 1004.0, 1003.0, 1001.0)
    ]
    assert reached(14) is reached(14, newest_first=True) is None
    assert reached(6, after=1001.0, until=1004.0) == 1004.0
    assert reached(8, after=1001.0, until=1004.0) is None
    assert reached(5, requests=3) is None, "the first three requests have four rows"
    assert reached(4, requests=3) == 1003.0


def test_shipped_until_is_the_time_of_the_slowest_open_spool(ledger: Ledger) -> None:
    assert shipped_until(ledger, "m", [1]) is None
    store_records(ledger, [], [], spool("a", 100.0))
    store_records(ledger, [], [], spool("b", 50.0))
    store_records(ledger, [], [], spool("c", 10.0, closed=True))
    assert shipped_until(ledger, "m", [1]) == 50.0
    assert shipped_until(ledger, "m", [1, 2]) is None


def test_an_event_is_stored_once_and_history_is_in_order(ledger: Ledger) -> None:
    first = Event("a", "m", 1, 1.0, "because", Promoted())
    assert emit(ledger, first)
    assert not emit(ledger, msgspec.structs.replace(first, reason="another"))
    assert emit(ledger, Event("b", "m", 2, 2.0, "better", Promoted(replaces=1)))
    assert [e.id for e in history(ledger, "m")] == ["a", "b"]
    assert history(ledger, "m", version=1) == [first]
    assert production_version(ledger, "m") == 2
    assert production_version(ledger, "other") is None


def test_episodes_attempts_and_reports_read_back_as_saved(ledger: Ledger) -> None:
    episode = Episode("m-v1-e1", "m", 1, "training", 1.0, 2.0, 3.0, 1, "drift of x")
    save_episode(ledger, episode)
    later = msgspec.structs.replace(episode, state="promoted", changed=4.0)
    save_episode(ledger, later)
    assert episodes(ledger, "m") == [later]
    attempt = Attempt("m-v1-a1", "m-v1-e1", "m", "drift", 5.0)
    save_attempt(ledger, attempt)
    save_attempt(ledger, msgspec.structs.replace(attempt, trigger="other"))
    assert attempts(ledger, "m") == [attempt]
    report = DriftReport(
        verdict="drifted", reason="drift of x", window=ReportWindow(1.0, 2.0, 500), features=(X,)
    )
    save_report(ledger, "m", 1, report)
    save_report(ledger, "m", 1, report)
    assert reports(ledger, "m", 1) == [report]


def test_concurrent_writers_lose_nothing(ledger: Ledger) -> None:
    def write(part: int) -> None:
        for start in range(0, 100, 10):
            batch = [prediction(part * 100 + start + n) for n in range(10)]
            store_records(ledger, batch, [], spool(str(part)))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    with ledger.read() as connection:
        assert (
            connection.execute(select(func.count()).select_from(tables.predictions)).scalar() == 400
        )


def test_any_text_is_stored_or_shortened(ledger: Ledger) -> None:
    texts = {"client": "\N{SNOWMAN}" * 300, "subject": "Straße 🚂", "error": "x\0y" * 50_000}
    inputs = {"x": ["\N{SNOWMAN}\0'\\\"%s:x", 2.0], "y": [2**53 + 1, 0.1 + 0.2]}
    store_records(ledger, [prediction(1, inputs=inputs, **texts)], [], spool())
    (seen,) = observations(ledger, "m", 1, since=0.0)
    assert seen.inputs == inputs
    assert (seen.error or "").startswith("x\N{REPLACEMENT CHARACTER}y")


def test_nan_and_infinity_are_stored_as_null(ledger: Ledger) -> None:
    watched = Watched(verdict="fail", observations={"skew": float("nan")})
    assert emit(ledger, Event("a", "m", 1, 1.0, "why", watched))
    infinite = msgspec.structs.replace(X, z=float("inf"))
    report = DriftReport(
        verdict="drifted", reason="", window=ReportWindow(1.0, 2.0), features=(infinite,)
    )
    save_report(ledger, "m", 1, report)
    assert history(ledger, "m")[0].details == Watched(verdict="fail", observations={"skew": None})
    assert reports(ledger, "m", 1)[0].features == (msgspec.structs.replace(X, z=None),)


def test_names_differ_by_case_accents_and_spaces(ledger: Ledger) -> None:
    names = ("Press", "press", "préss", "press ")
    for name in names:
        assert emit(ledger, Event(name, "m", 1, 1.0, "why", Promoted()))
    store_records(ledger, [prediction(n, subject=s) for n, s in enumerate(names)], [], spool())
    with ledger.read() as connection:
        p = tables.predictions.c
        found = connection.execute(select(p.id).where(p.subject == "press")).all()
    assert [row.id for row in found] == [prediction(1).id]


def test_times_keep_their_microseconds(ledger: Ledger) -> None:
    times = [1_763_700_000.123456 + n * 1e-6 for n in range(3)]
    store_records(ledger, [prediction(n, time=t) for n, t in enumerate(times)], [], spool())
    assert [o.time for o in observations(ledger, "m", 1, since=times[0])] == times
    assert [o.time for o in observations(ledger, "m", 1, since=times[1], until=times[2])] == [
        times[1]
    ]


def test_shortened_ids_of_events_stay_different(ledger: Ledger) -> None:
    assert emit(ledger, Event("x" * 300 + "a", "m", 1, 1.0, "y" * 100_000, Promoted()))
    assert emit(ledger, Event("x" * 300 + "b", "m", 1, 1.0, "why", Promoted()))
    assert not emit(ledger, Event("x" * 300 + "a", "m", 1, 1.0, "why", Promoted()))
    assert len(history(ledger, "m")) == 2


def test_concurrent_sidecars_store_the_same_requests_once(
    ledger: Ledger, database_url: str
) -> None:
    other = Ledger(database_url)
    random.seed(3)

    def write(target: Ledger) -> None:
        for start in range(0, 200, 20):
            batch = [
                prediction(start + n, attempt=attempt, status=OK if attempt == 2 else "UNAVAILABLE")
                for n in range(20)
                for attempt in (1, 2)
            ]
            random.shuffle(batch)
            store_records(target, batch, [label(start)], spool(str(id(target))[-8:]))
            emit(target, Event(f"{start}", "m", 1, 1.0, "why", Promoted()))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, (ledger, other)))
    other.close()
    assert [o.status for o in observations(ledger, "m", 1, since=0.0)] == [OK] * 200
    with ledger.read() as connection:
        count = select(func.count()).select_from(tables.superseded)
        assert connection.execute(count).scalar() == 200


def test_a_concurrent_better_attempt_is_not_replaced(
    server: Server,
) -> None:
    url = server.create()
    migrate(url)
    ledger = Ledger(url)
    store_records(ledger, [prediction(7, status="UNAVAILABLE")], [], spool())
    with ThreadPoolExecutor(1) as pool:
        with ledger.write() as connection:
            store_predictions(connection, [prediction(7, attempt=3)])
            slow = pool.submit(
                store_records, ledger, [prediction(7, attempt=2)], [], spool("other")
            )
            with pytest.raises(TimeoutError):
                slow.result(2.0)  # it waits for this transaction
        slow.result(60.0)
    seen = observations(ledger, "m", 1, since=0.0, superseded=True)
    ledger.close()
    assert [o.attempt for o in seen] == [1, 2, 3]
    assert [o.attempt for o in seen if o.outputs] == [3]
