import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import sample_version
from conftest import PROCESS_SECONDS, Starter
from waiting import wait_for
from wire import ENCODINGS, send, tensors

from watchkeeper.core.record import Gap, Prediction, decode_line
from watchkeeper.core.spool import IDENTITY, segment_path, segments, written_part
from watchkeeper.serving.spool import SpoolWriter

LINE = b'{"kind":"x"}' + b" " * 87 + b"\n"  # 100 bytes


def open_spool(folder: Path, limit: int = 10_000, segment_bytes: int = 1_000) -> SpoolWriter:
    return SpoolWriter(folder, "m", 7, limit, segment_bytes)


def lines(folder: Path) -> list[bytes]:
    contents = [segment_path(folder, number).read_bytes() for number in segments(folder)]
    return [
        line for content in contents for line in written_part(content).splitlines(keepends=True)
    ]


def test_segment_has_its_size_and_whole_lines(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    assert all(spool.write(LINE) for _ in range(25))
    spool.close()
    assert segments(tmp_path) == [1, 2, 3]
    assert lines(tmp_path) == [LINE] * 25


def test_restart_keeps_the_old_segment(tmp_path: Path) -> None:
    open_spool(tmp_path).write(LINE)
    identity = (tmp_path / IDENTITY).read_text()
    with segment_path(tmp_path, 1).open("r+b") as torn:
        torn.seek(len(LINE))
        torn.write(b'{"kind":"predic')
    # allocated bytes count as used
    assert open_spool(tmp_path, limit=1_000_000).write(LINE)
    assert segments(tmp_path) == [1, 2]
    assert lines(tmp_path) == [LINE, b'{"kind":"predic', LINE]
    assert (tmp_path / IDENTITY).read_text() == identity


def test_full_spool_refuses_lines_and_reports_the_gap_later(
    tmp_path: Path,
) -> None:
    spool = open_spool(tmp_path, limit=1_000, segment_bytes=200)
    kept = 0
    while spool.write(LINE):
        kept += 1
    assert kept == 10
    before = time.time()
    spool.count_lost(1, before)
    assert not spool.write(LINE)
    spool.count_lost(2, before + 1)
    for number in segments(tmp_path)[:-1]:  # the sidecar has shipped them
        segment_path(tmp_path, number).unlink()
    wait_for(lambda: spool.write(LINE), what="room again")
    spool.close()
    *_, reported, last = lines(tmp_path)
    (gap,) = decode_line(reported)
    assert isinstance(gap, Gap)
    assert (gap.lost, gap.since) == (3, before)
    assert gap.until >= before
    assert last == LINE


def test_restart_counts_existing_segments(tmp_path: Path) -> None:
    assert open_spool(tmp_path, limit=1_000).write(LINE * 10)
    assert not open_spool(tmp_path, limit=1_000).write(LINE)


def test_lines_of_any_size_are_written_whole(
    tmp_path: Path,
) -> None:
    spool = open_spool(tmp_path, limit=100_000_000, segment_bytes=3_000_000)
    sizes = [1, 4095, 4096, 4097, 262_143, 262_144, 262_145, 2_000_000, 1, 700_000, 1]
    given = [b"x" * (size - 1) + b"\n" for size in sizes]
    for count, line in enumerate(given, 1):
        assert spool.write(line)
        assert lines(tmp_path) == given[:count], "before it is closed, too"
    spool.close()
    contents = [segment_path(tmp_path, number).read_bytes() for number in segments(tmp_path)]
    assert len(contents) == 2
    assert b"".join(contents) == b"".join(given)


def test_full_volume_keeps_lines_whole_and_counts_lost_records(
    tmp_path: Path,
) -> None:
    """With a file size limit the kernel refuses to allocate, as with a full volume."""
    program = """
import resource, sys
from pathlib import Path
from watchkeeper.serving.spool import SpoolWriter
spool = SpoolWriter(Path(sys.argv[1]), "m", 7, 10_000_000, 1_000_000)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
line = b"x" * 99_999 + b"\\n"
for number in range(4):
    assert spool.write(line) == (number < 2)
    if number >= 2:
        spool.count_lost(1, 5.0)
assert not spool.write(line * 2)
spool.count_lost(2, 6.0)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert spool.write(line)
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    *kept, reported, last = lines(tmp_path)
    assert [len(line) for line in (*kept, last)] == [100_000] * 3
    (gap,) = decode_line(reported)
    assert isinstance(gap, Gap)
    assert (gap.lost, gap.since) == (4, 5.0)


def test_closed_spool_accepts_nothing(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, limit=1_000_000)
    assert spool.write(LINE)
    spool.close()
    assert not spool.write(LINE)
    assert not spool.write(LINE * 5_000)
    assert lines(tmp_path) == [LINE]


def test_shipped_segments_make_room(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, limit=100_000, segment_bytes=1_000)
    for _ in range(900):
        assert spool.write(LINE)
        for number in segments(tmp_path)[:-1]:  # the sidecar keeps up
            segment_path(tmp_path, number).unlink()
        assert spool.used_bytes <= 2_000


def test_server_with_a_full_spool_still_answers_and_counts(start: Starter) -> None:
    server = start(spool_bytes=3000).start()
    given = tensors(sample_version.rows(1))
    statuses = [send(server, "json", given).status for _ in range(20)]
    assert statuses == [200] * 20
    lost = server.metric("watchkeeper_records_lost_total")
    assert lost > 0
    assert server.metric("watchkeeper_records_total") + lost == 20
    for number in segments(server.spool)[:-1]:
        segment_path(server.spool, number).unlink()

    def reported() -> list[Gap]:
        send(server, "json", given)
        return [line for line in server.records() if isinstance(line, Gap)]

    wait_for(lambda: bool(reported()), what="a gap")
    assert sum(gap.lost for gap in reported()) == server.metric("watchkeeper_records_lost_total")


def test_sigkill_loses_no_answered_request(start: Starter) -> None:
    server = start()
    given = tensors(sample_version.rows(1))
    answered: set[str] = set()
    for encoding in ("json", "raw"):
        server.start()
        for _ in range(50):
            answered.add(send(server, encoding, given).parameters["prediction_id"][:32])
        assert server.kill(signal.SIGKILL) == -signal.SIGKILL
        assert answered <= {r.id for r in server.records() if isinstance(r, Prediction)}
    assert len(segments(server.spool)) == 2
    assert len(answered) == len(server.records()) == 100


def test_sigkill_under_load_loses_no_answered_request(start: Starter) -> None:
    server = start().start()
    given = tensors(sample_version.rows(1))
    answered: list[str] = []

    def ask(encoding: str) -> None:
        while True:
            try:
                reply = send(server, encoding, given)
            except httpx.TransportError:
                return
            if not reply.parameters:  # the gRPC channel is disconnected
                return
            answered.append(reply.parameters["prediction_id"][:32])

    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(ask, encoding) for encoding in ENCODINGS * 2]
        wait_for(lambda: len(answered) >= 1000, what="answers")
        server.kill(signal.SIGKILL)
        for each in asking:
            each.result(60)
    recorded = [record.id for record in server.records() if isinstance(record, Prediction)]
    assert set(answered) <= set(recorded)
    assert len(set(recorded)) == len(recorded) <= len(answered) + 8


def test_unwritable_spool_ends_the_process(start: Starter, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    server = start(spool=tmp_path / "file").spawn()
    assert server.process is not None
    assert server.process.wait(PROCESS_SECONDS) == 1
    assert "cannot serve" in server.log.read_text()
    assert "Traceback" not in server.log.read_text()
