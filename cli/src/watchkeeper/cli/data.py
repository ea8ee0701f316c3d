"""``watchkeeper data``: the tables that versions were trained on."""

import hashlib
import tempfile
from pathlib import Path

from watchkeeper.cli.commands import CommandError
from watchkeeper.cli.system import System
from watchkeeper.core.names import model_uri
from watchkeeper.core.snapshot import Snapshot
from watchkeeper.core.version import read_manifest
from watchkeeper.registry.snapshots import open_snapshots


def pull(system: System, model: str, version: int, file: Path) -> Snapshot:
    """Restore the table of all rows that the training run of a version has read, and verify it.

    Args:
        system: the system with the registry.
        model: the name of the model.
        version: the version.
        file: where the table is written. If it exists already with this content, nothing is read.

    Raises:
        CommandError: the version has no snapshot, or the file exists with other content.
        RegistryError, SnapshotError, RefusedSnapshotError: registry or store do not answer or have
            no such content.
    """
    with tempfile.TemporaryDirectory(prefix="watchkeeper-data-") as workspace:
        folder = Path(workspace) / "version"
        system.registry.download(model_uri(model, version), folder)
        snapshot = read_manifest(folder).lineage.snapshot
    if snapshot is None:
        raise CommandError(
            f"{model} version {version} has no snapshot: its training run had no store "
            "(WATCHKEEPER_SNAPSHOTS_URL), or it is older than snapshots"
        )
    if file.exists():
        with file.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        if found != snapshot.sha256:
            raise CommandError(f"{file} exists with other content; name another file with --to")
        return snapshot
    if (store := open_snapshots(snapshot.url)) is not None:
        store.get(snapshot, file)
    return snapshot
