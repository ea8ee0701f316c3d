"""Synthetic requests are stored and counted, and no reader gets them without asking."""

import msgspec
import pytest
from batches import batch_of
from samples import FAILED, label, prediction, spool
from sqlalchemy import inspect, select

from watchkeeper.core.record import Prediction, decode_line
from watchkeeper.ledger import Ledger, migrate, tables
from watchkeeper.ledger.counts import count_answered, count_labelled_rows
from watchkeeper.ledger.lookup import find_prediction
from watchkeeper.ledger.observations import (
    labelled_rows,
    observations,
    request_sizes,
    time_of_row,
)
from watchkeeper.ledger.records import store_records

MADE = [prediction(n, time=10.0 + n, synthetic=n % 2 == 1) for n in range(10)]


def shipped(made: list[Prediction], *, together: bool) -> list[Prediction]:
    """Return what a sidecar reads from the lines that a server writes."""
    lines = [batch_of(made)] if together else made
    return [record for line in lines for record in decode_line(msgspec.json.encode(line))]


@pytest.mark.parametrize("together", [True, False])
def test_the_mark_survives_the_way_from_a_record_to_the_ledger(
    ledger: Ledger, together: bool
) -> None:
    store_records(ledger, shipped(MADE, together=together), [], spool(0.0))
    for made in MADE:
        found = find_prediction(ledger, made.id)
        assert found is not None
        assert found.prediction.synthetic is made.synthetic


def test_readers_get_synthetic_requests_only_if_they_ask(ledger: Ledger) -> None:
    store_records(ledger, MADE, [label(made) for made in MADE], spool(0.0))
    assert [o.time for o in observations(ledger, "m", 1, since=0.0)] == [10, 12, 14, 16, 18]
    every = observations(ledger, "m", 1, since=0.0, synthetic=True)
    assert [o.synthetic for o in every] == [False, True] * 5
    assert len(observations(ledger, "m", 1, since=0.0, limit=3)) == 3
    assert len(request_sizes(ledger, "m", 1, 100)) == 5
    assert len(request_sizes(ledger, "m", 1, 100, synthetic=True)) == 10
    assert time_of_row(ledger, "m", 1, 3) == 14
    assert time_of_row(ledger, "m", 1, 3, synthetic=True) == 12
    assert count_answered(ledger, "m") == 10, "they are counted"


def test_a_label_of_a_synthetic_request_does_not_exist(ledger: Ledger) -> None:
    store_records(ledger, MADE, [label(made) for made in MADE], spool(0.0))
    assert {row.prediction for row in labelled_rows(ledger, "m", since=0.0)} == {
        made.id for made in MADE if not made.synthetic
    }
    assert count_labelled_rows(ledger, "m", since=0.0, truth=FAILED)[1][1.0] == 5


def test_requests_of_a_ledger_without_the_mark_are_not_synthetic(database_url: str) -> None:
    migrate(database_url)
    old = Ledger(database_url)
    with old.write() as connection:
        # As the previous release has left it: its rows have no mark, and it adds more of them.
        connection.exec_driver_sql("ALTER TABLE predictions DROP COLUMN synthetic")
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0003'")
    names = [c.name for c in tables.predictions.columns if c.name != "synthetic"]
    values = {n: v for n, v in msgspec.structs.asdict(MADE[1]).items() if n in names}

    def insert(number: int) -> None:
        row = {**values, "id": f"{number:032x}", "time": float(number)}
        with old.write() as connection:
            connection.execute(tables.predictions.insert().values(**row))

    insert(1)
    migrate(database_url)
    insert(2)
    migrate(database_url)
    assert "synthetic" in {c["name"] for c in inspect(old.engine).get_columns("predictions")}
    p = tables.predictions.c
    with old.read() as connection:
        assert list(connection.execute(select(p.synthetic)).scalars()) == [False, False]
    assert [o.time for o in observations(old, "m", 1, since=0.0)] == [1.0, 2.0]
    old.close()
