"""Shipping: segments, incomplete lines, losses, and batches that are shipped again."""

import sqlite3
from pathlib import Path

import msgspec
import pytest
from batches import batch_of
from pump import MODEL, append, labels_for, predictions, rows
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from watchkeeper.core.record import Gap, LabelRecord
from watchkeeper.core.spool import CHECKPOINT, Checkpoint, segment_path, segments
from watchkeeper.core.version import MANIFEST, digest
from watchkeeper.drift.ship import Shipper
from watchkeeper.drift.spool_reader import BATCH_BYTES, read_batch
from watchkeeper.ledger import Ledger, tables
from watchkeeper.ledger.spools import open_spools


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def make_shipper(spool: Path, ledger: Ledger, now: float = 5000.0) -> Shipper:
    return Shipper(spool, ledger, MODEL, 1, Clock(now))


def ship_all(shipper: Shipper) -> None:
    while shipper.ship_batch():
        pass


def stored(ledger: Ledger) -> int:
    with ledger.read() as connection:
        return connection.execute(select(func.count()).select_from(tables.predictions)).scalar_one()


def state(ledger: Ledger) -> tuple[float, int, bool]:
    s = tables.spools.c
    with ledger.read() as connection:
        row = connection.execute(select(s.shipped_until, s.lost, s.closed)).one()
    return (row.shipped_until, row.lost, row.closed)


def test_an_empty_spool_has_a_shipped_until(tmp_path: Path, ledger: Ledger) -> None:
    shipper = make_shipper(tmp_path / "spool", ledger)
    assert not shipper.ship_batch()
    assert state(ledger) == (4999.0, 0, False)


def test_the_state_of_a_spool_has_the_content_once_its_files_are_there(
    tmp_path: Path, ledger: Ledger
) -> None:
    clock = Clock(5000.0)
    folder = tmp_path / "model"
    shipper = Shipper(tmp_path / "spool", ledger, MODEL, 1, clock, model_folder=folder)
    shipper.ship_batch()
    assert [spool.digest for spool in open_spools(ledger, MODEL)] == [None]
    folder.mkdir()
    (folder / MANIFEST).write_text("{}")
    clock.now += 10
    shipper.ship_batch()
    assert [spool.digest for spool in open_spools(ledger, MODEL)] == [digest(folder)]


def test_records_are_shipped_and_lower_segments_deleted(tmp_path: Path, ledger: Ledger) -> None:
    data = predictions(rows(60, 1))
    append(tmp_path, data[:20], 1)
    append(tmp_path, data[20:40], 2)
    append(tmp_path, [*data[40:], *labels_for(data[:3])], 3)
    shipper = make_shipper(tmp_path, ledger)
    ship_all(shipper)
    assert stored(ledger) == 60
    assert segments(tmp_path) == [3]
    assert shipper.shipped == 63
    assert read_batch(tmp_path, shipper.checkpoint).predictions == []


def test_shipped_until_is_below_requests_that_may_still_be_answered(
    tmp_path: Path, ledger: Ledger
) -> None:
    slow = msgspec.structs.replace(predictions(rows(1, 1))[0], latency=7.0)
    append(tmp_path, [slow])
    ship_all(make_shipper(tmp_path, ledger))
    assert state(ledger)[0] == 5000.0 - 14.0


def test_shipped_until_does_not_advance_while_the_spool_contains_more(
    tmp_path: Path, ledger: Ledger
) -> None:
    data = predictions(rows(40, 1))
    append(tmp_path, data[:20], 1)
    append(tmp_path, data[20:], 2)
    shipper = make_shipper(tmp_path, ledger)
    assert shipper.ship_batch()
    assert state(ledger)[0] == 0.0
    assert not shipper.ship_batch()
    assert state(ledger)[0] == 4999.0


def test_an_incomplete_last_line_is_read_when_it_is_complete(
    tmp_path: Path, ledger: Ledger
) -> None:
    one, two = predictions(rows(2, 1))
    append(tmp_path, [one])
    line = msgspec.json.encode(two) + b"\n"
    with segment_path(tmp_path, 1).open("ab") as file:
        file.write(line[:50])
    shipper = make_shipper(tmp_path, ledger)
    ship_all(shipper)
    assert (stored(ledger), shipper.checkpoint.torn) == (1, 0)
    assert state(ledger)[0] == 0.0, "the incomplete record may be older than the clock"
    with segment_path(tmp_path, 1).open("ab") as file:
        file.write(line[50:])
    ship_all(shipper)
    assert (stored(ledger), shipper.checkpoint.torn) == (2, 0)


def test_allocated_bytes_that_are_not_written_yet_are_not_a_line(
    tmp_path: Path, ledger: Ledger
) -> None:
    one, two, three = predictions(rows(3, 1))
    append(tmp_path, [one])
    path = segment_path(tmp_path, 1)
    end = path.stat().st_size
    line = msgspec.json.encode(two) + b"\n"
    shipper = make_shipper(tmp_path, ledger)
    for written in (b"", line[:50], line[:50] + b"\0" * (len(line) - 51) + b"\n"):
        with path.open("r+b") as file:
            file.seek(end)
            file.write(written + b"\0" * (2 * BATCH_BYTES))
        ship_all(shipper)
        assert (stored(ledger), shipper.checkpoint.torn, shipper.checkpoint.lost) == (1, 0, 0)
    append(tmp_path, [three], 2)
    ship_all(shipper)
    assert (stored(ledger), shipper.checkpoint.torn, shipper.checkpoint.lost) == (2, 1, 0)
    assert segments(tmp_path) == [2]


def test_a_line_that_is_completed_in_the_allocated_bytes_is_read(
    tmp_path: Path, ledger: Ledger
) -> None:
    one, two = predictions(rows(2, 1))
    lines = [msgspec.json.encode(each) + b"\n" for each in (one, two)]
    path = segment_path(tmp_path, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    shipper = make_shipper(tmp_path, ledger)
    for count, written in enumerate((lines[0], lines[0] + lines[1]), 1):
        path.write_bytes(written.ljust(4096, b"\0"))
        ship_all(shipper)
        assert (stored(ledger), shipper.checkpoint.offset) == (count, len(written))


def test_an_incomplete_line_at_the_end_of_a_complete_segment_is_counted(
    tmp_path: Path, ledger: Ledger
) -> None:
    one, two, three = predictions(rows(3, 1))
    append(tmp_path, [one])
    with segment_path(tmp_path, 1).open("ab") as file:
        file.write(msgspec.json.encode(two)[:50])
    append(tmp_path, [three], 2)
    shipper = make_shipper(tmp_path, ledger)
    ship_all(shipper)
    assert (stored(ledger), shipper.checkpoint.torn, segments(tmp_path)) == (2, 1, [2])


def test_unreadable_lines_and_gaps_are_counted_as_lost(tmp_path: Path, ledger: Ledger) -> None:
    one, two = predictions(rows(2, 1))
    append(tmp_path, [one])
    with segment_path(tmp_path, 1).open("ab") as file:
        file.write(b"{}\n\xff\xfe\nnot json\n\n")
    append(tmp_path, [Gap(MODEL, 1, 41, 1.0, 2.0), two])
    ship_all(make_shipper(tmp_path, ledger))
    assert stored(ledger) == 2
    assert state(ledger)[1] == 41 + 4


def test_losses_are_counted_once_if_a_batch_is_shipped_again(
    tmp_path: Path, ledger: Ledger
) -> None:
    append(tmp_path, [*predictions(rows(5, 1)), Gap(MODEL, 1, 3, 1.0, 2.0)])
    ship_all(make_shipper(tmp_path, ledger))
    (tmp_path / CHECKPOINT).write_bytes(
        msgspec.json.encode(Checkpoint())
    )  # killed before the checkpoint moved
    append(tmp_path, [Gap(MODEL, 1, 4, 1.0, 2.0)])
    ship_all(make_shipper(tmp_path, ledger))
    assert (stored(ledger), state(ledger)[1]) == (5, 7)
    append(tmp_path, [Gap(MODEL, 1, 1, 1.0, 2.0)])
    ship_all(make_shipper(tmp_path, ledger))
    assert state(ledger)[1] == 8


def test_the_whole_spool_is_shipped_again_if_the_checkpoint_is_broken(
    tmp_path: Path, ledger: Ledger
) -> None:
    append(tmp_path, predictions(rows(5, 1)))
    ship_all(make_shipper(tmp_path, ledger))
    (tmp_path / CHECKPOINT).write_bytes(b"")
    ship_all(make_shipper(tmp_path, ledger))
    assert stored(ledger) == 5


def test_batches_are_limited_but_a_longer_line_is_read_completely(
    tmp_path: Path, ledger: Ledger
) -> None:
    long = msgspec.structs.replace(predictions(rows(1, 1))[0], client="x" * (2 * BATCH_BYTES))
    data = predictions(rows(3000, 2), first=1)
    append(tmp_path, [long, *data])
    first = read_batch(tmp_path, Checkpoint())
    assert first.predictions[0] == long
    second = read_batch(tmp_path, first.checkpoint)
    assert 100 < len(second.predictions) < 2000
    ship_all(make_shipper(tmp_path, ledger))
    assert stored(ledger) == 3001


def test_one_record_that_the_ledger_refuses_must_not_fail_its_batch(
    tmp_path: Path, ledger: Ledger
) -> None:
    data = predictions(rows(9, 1))
    bad = LabelRecord(data[0].id, 2**70, MODEL, 1, 1.0, 1.0, "test")
    append(tmp_path, [*data, bad, *labels_for(data[:1])])
    ship_all(make_shipper(tmp_path, ledger))
    assert (stored(ledger), state(ledger)[1]) == (9, 1)


def test_a_batch_is_stored_when_the_ledger_is_no_longer_locked(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watchkeeper.ledger.engines.LOCK_SECONDS", 0.1)
    ledger = Ledger(url)
    append(tmp_path / "spool", predictions(rows(5, 1)))
    shipper = make_shipper(tmp_path / "spool", ledger)
    other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(SQLAlchemyError):
        shipper.ship_batch()
    assert (stored(ledger), shipper.checkpoint, shipper.shipped) == (0, Checkpoint(), 0)
    other.execute("ROLLBACK")
    other.close()
    ship_all(shipper)
    assert stored(ledger) == 5
    ledger.close()


def test_unknown_fields_are_skipped_and_unknown_kinds_counted_as_lost(
    tmp_path: Path, ledger: Ledger
) -> None:
    newer = msgspec.to_builtins(predictions(rows(1, 1))[0]) | {"zone": "north"}
    with segment_path(tmp_path, 1).open("ab") as file:
        file.write(msgspec.json.encode(newer) + b"\n" + b'{"kind":"weather"}\n')
    ship_all(make_shipper(tmp_path, ledger))
    assert (stored(ledger), state(ledger)[1]) == (1, 1)


def test_a_batch_is_shipped_as_its_requests(tmp_path: Path, ledger: Ledger) -> None:
    made = predictions(rows(12, 1), each=2)
    for two in (made[:2], made[2:4], made[4:]):
        append(tmp_path, [batch_of(two)])
    assert read_batch(tmp_path, Checkpoint()).predictions == made
    append(tmp_path, [msgspec.structs.replace(batch_of(made), inputs={"flow": []})])
    ship_all(make_shipper(tmp_path, ledger))
    assert (stored(ledger), state(ledger)[1]) == (len(made), 1)


def test_a_closed_spool_is_opened_by_the_next_write(tmp_path: Path, ledger: Ledger) -> None:
    shipper = make_shipper(tmp_path, ledger)
    ship_all(shipper)
    shipper.close()
    assert state(ledger)[2]
    make_shipper(tmp_path, ledger).ship_batch()
    assert not state(ledger)[2]


def test_a_retried_request_is_stored_once(tmp_path: Path, ledger: Ledger) -> None:
    (one,) = predictions(rows(1, 1))
    failed = msgspec.structs.replace(one, status="UNAVAILABLE", attempt=1)
    answered = msgspec.structs.replace(one, attempt=2)
    append(tmp_path, [answered, failed])
    ship_all(make_shipper(tmp_path, ledger))
    with ledger.read() as connection:
        row = connection.execute(select(tables.predictions)).one()
    assert (row.attempt, row.status) == (2, "OK")
