"""The files of a spool."""

from pathlib import Path

from watchkeeper.core import spool


def test_the_identity_of_a_spool_does_not_change(tmp_path: Path) -> None:
    assert spool.identity(tmp_path) == spool.identity(tmp_path)
    spool.segment_path(tmp_path, 12).touch()
    spool.segment_path(tmp_path, 3).touch()
    assert spool.segments(tmp_path) == [3, 12]
