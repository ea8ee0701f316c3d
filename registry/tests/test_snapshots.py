"""The store of snapshots, as a folder and as a real S3 service: written once, read as it was."""

from pathlib import Path

import msgspec
import pytest
from free_ports import HOST, free_port
from object_store import S3

from watchkeeper.core.settings import SettingsError
from watchkeeper.core.snapshot import Snapshot
from watchkeeper.registry.snapshots import (
    RefusedSnapshotError,
    SnapshotError,
    SnapshotSettings,
    SnapshotStore,
    dvc_file,
    open_snapshots,
    path_of,
)

CONTENT = bytes(range(256)) * 5000


class Place(msgspec.Struct):
    """A store, its settings, and the folder where its objects are as files."""

    store: SnapshotStore
    settings: SnapshotSettings
    files: Path

    def object(self, snapshot: Snapshot) -> Path:
        return self.files / path_of(snapshot)


def put(store: SnapshotStore, table: Path) -> Snapshot:
    snapshot = store.describe(table, 10)
    store.put(table, snapshot)
    return snapshot


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        settings = SnapshotSettings(f"file://{tmp_path}/tables")
        return Place(SnapshotStore(settings), settings, tmp_path / "tables")
    s3 = request.getfixturevalue("s3")
    bucket = f"bucket-{tmp_path.name.replace('_', '-')[:40].lower()}"
    settings = s3.settings(bucket)
    return Place(SnapshotStore(settings), settings, s3.buckets / bucket / "tables")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.parquet"
    path.write_bytes(CONTENT)
    return path


def test_a_table_is_restored_byte_for_byte(place: Place, table: Path, tmp_path: Path) -> None:
    snapshot = put(place.store, table)
    assert (snapshot.rows, snapshot.size) == (10, len(CONTENT))
    SnapshotStore(place.settings).get(snapshot, tmp_path / "restored")
    assert (tmp_path / "restored").read_bytes() == CONTENT


def test_the_same_content_is_written_once(place: Place, table: Path) -> None:
    first = put(place.store, table)
    before = place.object(first).stat()
    assert put(place.store, table) == first
    after = place.object(first).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert [p for p in place.files.rglob("*") if p.is_file()] == [place.object(first)]


def test_a_changed_object_is_refused_and_no_file_is_written(
    place: Place, table: Path, tmp_path: Path
) -> None:
    snapshot = put(place.store, table)
    place.object(snapshot).write_bytes(CONTENT[::-1])
    with pytest.raises(RefusedSnapshotError, match=f"that of the version is {snapshot.sha256}"):
        place.store.get(snapshot, tmp_path / "restored")
    assert not (tmp_path / "restored").exists()


def test_a_table_is_not_taken_as_stored_if_its_name_has_other_content(
    place: Place, table: Path
) -> None:
    snapshot = put(place.store, table)
    place.object(snapshot).write_bytes(b"other")
    with pytest.raises(RefusedSnapshotError, match="has 5 bytes, and not"):
        put(place.store, table)


def test_an_object_that_is_missing_is_named(place: Place, table: Path, tmp_path: Path) -> None:
    snapshot = put(place.store, table)
    place.object(snapshot).unlink()
    with pytest.raises(RefusedSnapshotError, match=path_of(snapshot)):
        place.store.get(snapshot, tmp_path / "restored")


@pytest.mark.parametrize(
    "wrong",
    [{"snapshots_secret_key": "wrong"}, {"snapshots_url": "s3://no-such-bucket/tables"}],
    ids=["key", "bucket"],
)
@pytest.mark.parametrize("place", ["s3"], indirect=True)
def test_a_permanent_refusal_is_not_an_outage(
    place: Place, table: Path, wrong: dict[str, str]
) -> None:
    store = SnapshotStore(msgspec.structs.replace(place.settings, **wrong))
    with pytest.raises(RefusedSnapshotError):
        put(store, table)


def test_a_store_that_does_not_answer_is_an_outage(table: Path) -> None:
    nobody = f"http://{HOST}:{free_port()}"
    store = SnapshotStore(SnapshotSettings("s3://tables", nobody, "us-east-1", "key", "secret"))
    with pytest.raises(SnapshotError, match="s3://tables: cannot write files/md5/"):
        put(store, table)


@pytest.mark.parametrize(
    "url",
    ["/tables", "ftp://host/tables", "tables", "s3://", "file://tables", "gs://bucket/tables"],
)
def test_a_url_of_no_store_is_refused_with_the_name_of_the_setting(url: str) -> None:
    with pytest.raises(SettingsError, match="WATCHKEEPER_SNAPSHOTS_URL="):
        SnapshotStore(SnapshotSettings(url))


def test_a_process_without_a_url_has_no_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WATCHKEEPER_SNAPSHOTS_URL", raising=False)
    assert open_snapshots() is None
    monkeypatch.setenv("WATCHKEEPER_SNAPSHOTS_URL", f"file://{tmp_path}/tables/")
    found = open_snapshots()
    assert found is not None
    assert found.url == f"file://{tmp_path}/tables"
    assert not (tmp_path / "tables").exists()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path, table: Path) -> None:
    (tmp_path / "file").touch()
    store = SnapshotStore(SnapshotSettings(f"file://{tmp_path}/file/tables"))
    with pytest.raises(RefusedSnapshotError, match="file/tables: cannot write files/md5/"):
        put(store, table)


def test_reading_makes_no_folder(tmp_path: Path, table: Path) -> None:
    store = SnapshotStore(SnapshotSettings(f"file://{tmp_path}/tables"))
    with pytest.raises((RefusedSnapshotError, SnapshotError)):
        store.get(store.describe(table, 10), tmp_path / "restored")
    assert not (tmp_path / "tables").exists()
    assert {path.name for path in tmp_path.iterdir()} == {table.name}


def test_an_error_of_s3_contains_no_key(s3: S3, table: Path) -> None:
    settings = msgspec.structs.replace(s3.settings("secret"), snapshots_secret_key="bbbbbb")
    with pytest.raises(RefusedSnapshotError) as refused:
        put(SnapshotStore(settings), table)
    assert "bbbbbb" not in str(refused.value)


def test_the_file_for_dvc_names_the_object_by_its_md5() -> None:
    snapshot = Snapshot("file:///x", "0" * 64, "ab" + "c" * 30, 7, 1)
    assert path_of(snapshot) == f"files/md5/ab/{'c' * 30}"
    assert dvc_file(snapshot, "rows.parquet").splitlines() == [
        "outs:",
        f"- md5: {snapshot.md5}",
        "  size: 7",
        "  hash: md5",
        "  path: rows.parquet",
    ]
