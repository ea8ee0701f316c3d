"""What ``watchkeeper data`` works with: training tables, and the signature of the views."""

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from watchkeeper.cli.commands import CommandError
from watchkeeper.cli.system import CliSettings, System
from watchkeeper.core.names import model_uri
from watchkeeper.core.persisted import effective_variables, read_persisted
from watchkeeper.core.settings import read_settings
from watchkeeper.core.signature import Signature
from watchkeeper.core.snapshot import Snapshot
from watchkeeper.core.version import Manifest, read_manifest
from watchkeeper.registry.snapshots import SnapshotSettings, SnapshotStore


def snapshot_of(system: System, model: str, version: int) -> Snapshot:
    """Return the snapshot of a version: the table of all rows that its training run has read.

    Raises:
        CommandError: the version has no snapshot.
        RegistryError: the registry does not answer, or has no such version.
    """
    snapshot = _manifest(system, model, version).lineage.snapshot
    if snapshot is None:
        raise CommandError(
            f"{model} version {version} has no snapshot: its training run had no store "
            "(WATCHKEEPER_SNAPSHOTS_URL), or it is older than snapshots"
        )
    return snapshot


def production_signature(system: System, model: str) -> Signature:
    """Return the signature of the version in production.

    Raises:
        CommandError: the model has no version in production.
        RegistryError: the registry does not answer.
    """
    version = system.registry.aliases(model).get("production")
    if version is None:
        raise CommandError(f"{model} has no version in production yet")
    return _manifest(system, model, version).signature


def _manifest(system: System, model: str, version: int) -> Manifest:
    with tempfile.TemporaryDirectory(prefix="watchkeeper-data-") as workspace:
        folder = Path(workspace) / "version"
        system.registry.download(model_uri(model, version), folder)
        return read_manifest(folder)


def restore(snapshot: Snapshot, settings: SnapshotSettings, file: Path) -> None:
    """Restore a snapshot as a file, and verify it.

    If the file exists already with this content, nothing is read.

    Args:
        snapshot: the snapshot.
        settings: of the store; without a URL, that of the snapshot is used.
        file: where the table is written.

    Raises:
        CommandError: the file exists with other content.
        SettingsError: a setting of the store cannot be used.
        SnapshotError, RefusedSnapshotError: the store does not answer, or has no such content.
    """
    if file.exists():
        with file.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        if found != snapshot.sha256:
            raise CommandError(f"{file} exists with other content; name another file with --to")
        return
    url = settings.snapshots_url or snapshot.url
    SnapshotStore(msgspec.structs.replace(settings, snapshots_url=url)).get(snapshot, file)


def store_settings(settings: CliSettings, environ: Mapping[str, str], url: str) -> SnapshotSettings:
    """Return the settings of the store: those of the environment, else those of the local system.

    Args:
        settings: which system the command line works on.
        environ: the variables.
        url: where the store is now; empty if it is where the version says.

    Raises:
        SettingsError: a setting cannot be used.
    """
    names = [field.name for field in msgspec.structs.fields(SnapshotSettings)]
    is_local = settings.platform in ("", f"local:{settings.home}")
    persisted = read_persisted(settings.home) if is_local else {}
    found = read_settings(SnapshotSettings, effective_variables(names, persisted, environ))
    return msgspec.structs.replace(found, snapshots_url=url)
