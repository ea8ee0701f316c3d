"""``watchkeeper data``: where the store of a table is, and files that exist are kept."""

from pathlib import Path

import pytest

from watchkeeper.cli.commands import CommandError
from watchkeeper.cli.data import restore, store_settings
from watchkeeper.cli.system import CliSettings
from watchkeeper.core.persisted import write_persisted
from watchkeeper.core.snapshot import Snapshot
from watchkeeper.registry.snapshots import SnapshotSettings, SnapshotStore

STORED = {
    "WATCHKEEPER_SNAPSHOTS_URL": "s3://plant/tables",
    "WATCHKEEPER_SNAPSHOTS_ENDPOINT": "https://s3.example.com",
    "WATCHKEEPER_SNAPSHOTS_ACCESS_KEY": "stored",
}


@pytest.fixture
def snapshot(tmp_path: Path) -> Snapshot:
    """A table in a store."""
    table = tmp_path / "table"
    table.write_bytes(b"rows")
    store = SnapshotStore(SnapshotSettings((tmp_path / "store").as_uri()))
    found = store.describe(table, 1)
    store.put(table, found)
    return found


def test_the_settings_of_an_earlier_up_apply_and_the_environment_comes_first(
    tmp_path: Path,
) -> None:
    write_persisted(tmp_path, STORED)
    given = {"WATCHKEEPER_SNAPSHOTS_ACCESS_KEY": "given"}
    found = store_settings(CliSettings(home=tmp_path), given, "")
    assert found.snapshots_endpoint == "https://s3.example.com"
    assert found.snapshots_access_key == "given"


def test_the_version_says_where_its_table_is_unless_the_user_does(tmp_path: Path) -> None:
    write_persisted(tmp_path, STORED)
    local = CliSettings(home=tmp_path)
    assert store_settings(local, STORED, "").snapshots_url == ""
    assert store_settings(local, STORED, "s3://archive").snapshots_url == "s3://archive"


def test_the_settings_of_the_local_system_are_not_those_of_a_cluster(tmp_path: Path) -> None:
    write_persisted(tmp_path, STORED)
    cluster = CliSettings(home=tmp_path, platform="kube:plant")
    assert store_settings(cluster, {}, "") == SnapshotSettings()


def test_a_table_is_restored_from_where_the_version_says_or_from_where_it_was_moved(
    tmp_path: Path, snapshot: Snapshot
) -> None:
    restore(snapshot, SnapshotSettings(), tmp_path / "one")
    (tmp_path / "store").rename(tmp_path / "moved")
    restore(snapshot, SnapshotSettings((tmp_path / "moved").as_uri()), tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes() == b"rows"


def test_a_file_with_the_content_needs_no_store_and_another_file_is_kept(
    tmp_path: Path, snapshot: Snapshot
) -> None:
    (tmp_path / "store").rename(tmp_path / "gone")
    restore(snapshot, SnapshotSettings(), tmp_path / "table")
    other = tmp_path / "other"
    other.write_bytes(b"other")
    with pytest.raises(CommandError, match="exists with other content; name another file"):
        restore(snapshot, SnapshotSettings(), other)
    assert other.read_bytes() == b"other"
