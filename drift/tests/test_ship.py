import sqlite3
from pathlib import Path

import msgspec
import pytest
from a_round import together
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from world import MODEL, append, labels_for, predictions, rows

from watchkeeper.contracts.record import Gap, LabelRecord
from watchkeeper.contracts.spool import CHECKPOINT, Checkpoint, segment_path, segments
from watchkeeper.drift.ship import Shipper
from watchkeeper.drift.tail import BATCH_BYTES, read_batch
from watchkeeper.ledger import Ledger, tables


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def shipper(spool: Path, ledger: Ledger, now: float = 5000.0) -> Shipper:
    return Shipper(spool, ledger, MODEL, 1, Clock(now))


def ship_all(ship: Shipper) -> None:
    while ship.turn():
        pass


def stored(ledger: Ledger) -> int:
    with ledger.read() as connection:
        return connection.execute(select(func.count()).select_from(tables.predictions)).scalar_one()


def state(ledger: Ledger) -> tuple[float, int, bool]:
    s = tables.spools.c
    with ledger.read() as connection:
        row = connection.execute(select(s.shipped_until, s.lost, s.closed)).one()
    return (row.shipped_until, row.lost, row.closed)


def test_a_spool_without_a_record_says_how_far_it_is_shipped(
    tmp_path: Path, ledger: Ledger
) -> None:
    ship = shipper(tmp_path / "spool", ledger)
    assert not ship.turn()
    assert state(ledger) == (4999.0, 0, False)


def test_records_are_shipped_and_lower_segments_deleted(tmp_path: Path, ledger: Ledger) -> None:
    data = predictions(rows(60, 1))
    append(tmp_path, data[:20], 1)
    append(tmp_path, data[20:40], 2)
    append(tmp_path, [*data[40:], *labels_for(data[:3])], 3)
    ship = shipper(tmp_path, ledger)
    ship_all(ship)
    assert stored(ledger) == 60
    assert segments(tmp_path) == [3]
    assert ship.shipped == 63
    assert read_batch(tmp_path, ship.checkpoint).predictions == []


def test_shipped_until_is_held_below_requests_that_may_still_be_answered(
    tmp_path: Path, ledger: Ledger
) -> None:
    slow = msgspec.structs.replace(predictions(rows(1, 1))[0], latency=7.0)
    append(tmp_path, [slow])
    ship_all(shipper(tmp_path, ledger))
    assert state(ledger)[0] == 5000.0 - 14.0


def test_shipped_until_stays_while_there_is_more_to_read(tmp_path: Path, ledger: Ledger) -> None:
    data = predictions(rows(40, 1))
    append(tmp_path, data[:20], 1)
    append(tmp_path, data[20:], 2)
    ship = shipper(tmp_path, ledger)
    assert ship.turn()
    assert state(ledger)[0] == 0.0
    assert not ship.turn()
    assert state(ledger)[0] == 4999.0


def test_a_torn_last_line_is_waited_for(tmp_path: Path, ledger: Ledger) -> None:
    one, two = predictions(rows(2, 1))
    append(tmp_path, [one])
    line = msgspec.json.encode(two) + b"\n"
    with segment_path(tmp_path, 1).open("ab") as file:
        file.write(line[:50])
    ship = shipper(tmp_path, ledger)
    ship_all(ship)
    assert (stored(ledger), ship.checkpoint.torn) == (1, 0)
    assert state(ledger)[0] == 0.0, "what is torn may be older than the clock"
    with segment_path(tmp_path, 1).open("ab") as file:
        file.write(line[50:])
    ship_all(ship)
    assert (stored(ledger), ship.checkpoint.torn) == (2, 0)


def test_what_is_allocated_and_not_written_yet_is_no_line(tmp_path: Path, ledger: Ledger) -> None:
    one, two, three = predictions(rows(3, 1))
    append(tmp_path, [one])
    path = segment_path(tmp_path, 1)
    end = path.stat().st_size
    line = msgspec.json.encode(two) + b"\n"
    ship = shipper(tmp_path, ledger)
    for written in (b"", line[:50], line[:50] + b"\0" * (len(line) - 51) + b"\n"):
        with path.open("r+b") as file:
            file.seek(end)
            file.write(written + b"\0" * (2 * BATCH_BYTES))
        ship_all(ship)
        assert (stored(ledger), ship.checkpoint.torn, ship.checkpoint.lost) == (1, 0, 0)
    append(tmp_path, [three], 2)
    ship_all(ship)
    assert (stored(ledger), ship.checkpoint.torn, ship.checkpoint.lost) == (2, 1, 0)
    assert segments(tmp_path) == [2]


def test_a_line_that_is_completed_in_what_was_allocated_is_read(
    tmp_path: Path, ledger: Ledger
) -> None:
    one, two = predictions(rows(2, 1))
    lines = [msgspec.json.encode(each) + b"\n" for each in (one, two)]
    path = segment_path(tmp_path, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    ship = shipper(tmp_path, ledger)
    for count, written in enumerate((lines[0], lines[0] + lines[1]), 1):
        path.write_bytes(written.ljust(4096, b"\0"))
        ship_all(ship)
        assert (stored(ledger), ship.checkpoint.offset) == (count, len(written))


def test_a_torn_last_line_below_another_segment_is_counted(tmp_path: Path, ledger: Ledger) -> None:
    one, two, three = predictions(rows(3, 1))
    append(tmp_path, [one])
    with segment_path(tmp_path, 1).open("ab") as file:
        file.write(msgspec.json.encode(two)[:50])
    append(tmp_path, [three], 2)
    ship = shipper(tmp_path, ledger)
    ship_all(ship)
    assert (stored(ledger), ship.checkpoint.torn, segments(tmp_path)) == (2, 1, [2])


def test_unreadable_lines_and_gaps_are_counted_as_lost_and_stop_nothing(
    tmp_path: Path, ledger: Ledger
) -> None:
    one, two = predictions(rows(2, 1))
    append(tmp_path, [one])
    with segment_path(tmp_path, 1).open("ab") as file:
        file.write(b"{}\n\xff\xfe\nnot json\n\n")
    append(tmp_path, [Gap(MODEL, 1, 41, 1.0, 2.0), two])
    ship_all(shipper(tmp_path, ledger))
    assert stored(ledger) == 2
    assert state(ledger)[1] == 41 + 4


def test_what_is_lost_is_counted_once_when_a_batch_is_shipped_again(
    tmp_path: Path, ledger: Ledger
) -> None:
    append(tmp_path, [*predictions(rows(5, 1)), Gap(MODEL, 1, 3, 1.0, 2.0)])
    ship_all(shipper(tmp_path, ledger))
    (tmp_path / CHECKPOINT).write_bytes(msgspec.json.encode(Checkpoint()))  # killed before it
    append(tmp_path, [Gap(MODEL, 1, 4, 1.0, 2.0)])
    ship_all(shipper(tmp_path, ledger))
    assert (stored(ledger), state(ledger)[1]) == (5, 7)
    append(tmp_path, [Gap(MODEL, 1, 1, 1.0, 2.0)])
    ship_all(shipper(tmp_path, ledger))
    assert state(ledger)[1] == 8


def test_a_broken_checkpoint_ships_everything_again(tmp_path: Path, ledger: Ledger) -> None:
    append(tmp_path, predictions(rows(5, 1)))
    ship_all(shipper(tmp_path, ledger))
    (tmp_path / CHECKPOINT).write_bytes(b"")
    ship_all(shipper(tmp_path, ledger))
    assert stored(ledger) == 5


def test_batches_are_bounded_and_a_line_longer_than_one_is_read_whole(
    tmp_path: Path, ledger: Ledger
) -> None:
    long = msgspec.structs.replace(predictions(rows(1, 1))[0], client="x" * (2 * BATCH_BYTES))
    data = predictions(rows(3000, 2), first=1)
    append(tmp_path, [long, *data])
    first = read_batch(tmp_path, Checkpoint())
    assert first.predictions[0] == long
    second = read_batch(tmp_path, first.after)
    assert 100 < len(second.predictions) < 2000
    ship_all(shipper(tmp_path, ledger))
    assert stored(ledger) == 3001


def test_one_record_that_the_ledger_refuses_takes_no_other_with_it(
    tmp_path: Path, ledger: Ledger
) -> None:
    data = predictions(rows(9, 1))
    bad = LabelRecord(data[0].id, 2**70, MODEL, 1, 1.0, 1.0, "test")
    append(tmp_path, [*data, bad, *labels_for(data[:1])])
    ship_all(shipper(tmp_path, ledger))
    assert (stored(ledger), state(ledger)[1]) == (9, 1)


def test_a_locked_ledger_holds_the_batch_and_then_takes_it(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watchkeeper.ledger.engines.LOCK_SECONDS", 0.1)
    ledger = Ledger(url)
    append(tmp_path / "spool", predictions(rows(5, 1)))
    ship = shipper(tmp_path / "spool", ledger)
    other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(SQLAlchemyError):
        ship.turn()
    assert (stored(ledger), ship.checkpoint, ship.shipped) == (0, Checkpoint(), 0)
    other.execute("ROLLBACK")
    other.close()
    ship_all(ship)
    assert stored(ledger) == 5
    ledger.close()


def test_fields_and_kinds_of_a_newer_server_stop_nothing(tmp_path: Path, ledger: Ledger) -> None:
    newer = msgspec.to_builtins(predictions(rows(1, 1))[0]) | {"zone": "north"}
    with segment_path(tmp_path, 1).open("ab") as file:
        file.write(msgspec.json.encode(newer) + b"\n" + b'{"kind":"weather"}\n')
    ship_all(shipper(tmp_path, ledger))
    assert (stored(ledger), state(ledger)[1]) == (1, 1)


def test_a_round_is_shipped_as_the_requests_in_it(tmp_path: Path, ledger: Ledger) -> None:
    made = predictions(rows(12, 1), each=2)
    for two in (made[:2], made[2:4], made[4:]):
        append(tmp_path, [together(two)])
    assert read_batch(tmp_path, Checkpoint()).predictions == made
    append(tmp_path, [msgspec.structs.replace(together(made), inputs={"heat": []})])
    ship_all(shipper(tmp_path, ledger))
    assert (stored(ledger), state(ledger)[1]) == (len(made), 1)


def test_a_closed_spool_is_open_again_when_it_is_shipped_again(
    tmp_path: Path, ledger: Ledger
) -> None:
    ship = shipper(tmp_path, ledger)
    ship_all(ship)
    ship.close()
    assert state(ledger)[2]
    shipper(tmp_path, ledger).turn()
    assert not state(ledger)[2]


def test_a_retried_request_is_kept_once(tmp_path: Path, ledger: Ledger) -> None:
    (one,) = predictions(rows(1, 1))
    failed = msgspec.structs.replace(one, status="UNAVAILABLE", attempt=1)
    answered = msgspec.structs.replace(one, attempt=2)
    append(tmp_path, [answered, failed])
    ship_all(shipper(tmp_path, ledger))
    with ledger.read() as connection:
        row = connection.execute(select(tables.predictions)).one()
    assert (row.attempt, row.status) == (2, "OK")
