"""The store of snapshots: a folder or an object store with the training tables of versions.

Objects are named by their content, in the layout of a remote of DVC (``files/md5/ab/cdef…``), and
are written once: two versions that were trained on the same rows have one object.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import obstore
from msgspec import Meta
from obstore import exceptions
from obstore.store import ObjectStore, from_url

from watchkeeper.core.settings import SettingsError, read_settings
from watchkeeper.core.snapshot import Snapshot
from watchkeeper.core.spool import replace_file

SCHEMES: Final = ("file://", "s3://", "gs://", "az://")
TIMEOUT: Final = "60s"  # of one request
_RETRIES: Final = 3


class SnapshotSettings(msgspec.Struct, frozen=True):
    """Where the snapshots are. Without keys, the store's own ways to find credentials apply."""

    snapshots_url: Annotated[
        str,
        Meta(
            description="Where the training tables of versions are stored: `file:///folder`, "
            "`s3://bucket/folder`, `gs://…` or `az://…`. Empty: nowhere."
        ),
    ] = ""
    snapshots_endpoint: Annotated[
        str, Meta(description="URL of an S3 service other than Amazon's.")
    ] = ""
    snapshots_region: Annotated[str, Meta(description="Region of the bucket.")] = ""
    snapshots_access_key: Annotated[str, Meta(description="Access key of S3.")] = ""
    snapshots_secret_key: Annotated[str, Meta(description="Secret key of S3.")] = ""


class SnapshotError(RuntimeError):
    """The store did not answer."""


class RefusedSnapshotError(RuntimeError):
    """The store refuses, or has no such object; the same call would be refused again."""


class SnapshotStore:
    """A store of snapshots."""

    def __init__(self, settings: SnapshotSettings) -> None:
        """Open the store; this contacts nobody.

        Raises:
            SettingsError: the URL is of no kind that is supported, or malformed.
        """
        self.url = settings.snapshots_url.rstrip("/")
        if not self.url.startswith(SCHEMES):
            raise SettingsError(
                f"WATCHKEEPER_SNAPSHOTS_URL={self.url!r}: must begin with {', '.join(SCHEMES)}"
            )
        try:
            self._store: ObjectStore = from_url(self.url, **_options(settings))
        except (exceptions.BaseError, ValueError) as error:
            raise SettingsError(f"WATCHKEEPER_SNAPSHOTS_URL={self.url!r}: {error}") from error

    def put(self, file: Path, rows: int) -> Snapshot:
        """Store a table, unless the store has its content already.

        Args:
            file: the table.
            rows: the number of its rows.

        Raises:
            SnapshotError: the store did not answer; the same call can be repeated.
            RefusedSnapshotError: the store refuses, or the bucket does not exist.
        """
        snapshot = describe(file, rows, self.url)
        path = path_of(snapshot)
        with self._translated_errors(f"cannot write {path}"):
            with suppress(exceptions.AlreadyExistsError):
                # One request, so that the object appears whole. The store never replaces one.
                obstore.put(self._store, path, file, mode="create", use_multipart=False)
            size = obstore.head(self._store, path)["size"]
        if size != snapshot.size:
            raise RefusedSnapshotError(
                f"{self.url}/{path} has {size} bytes, and not {snapshot.size}: somebody has "
                "changed it; remove it, so that it can be written again"
            )
        return snapshot

    def get(self, snapshot: Snapshot, file: Path) -> None:
        """Restore a table, whole or not at all.

        Args:
            snapshot: the table.
            file: where it is written; a file that exists is replaced.

        Raises:
            SnapshotError: the store does not answer.
            RefusedSnapshotError: the store refuses, has no such object, or has one with other
                content under its name.
        """
        with self._translated_errors(f"cannot read {path_of(snapshot)}"):
            content = bytes(obstore.get(self._store, path_of(snapshot)).bytes())
        found = hashlib.sha256(content).hexdigest()
        if found != snapshot.sha256:
            raise RefusedSnapshotError(
                f"{self.url}/{path_of(snapshot)}: its SHA-256 is {found}, that of the version is "
                f"{snapshot.sha256}: somebody has changed it"
            )
        replace_file(file, content)

    @contextmanager
    def _translated_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except (exceptions.BaseError, OSError) as error:
            refused = (
                exceptions.PermissionDeniedError,
                exceptions.UnauthenticatedError,
                FileNotFoundError,
                PermissionError,
            )
            reason = f"{self.url}: {what}: {str(error).partition(chr(10))[0]}"
            if isinstance(error, refused):
                raise RefusedSnapshotError(reason) from error
            raise SnapshotError(reason) from error


def open_snapshots(url: str = "") -> SnapshotStore | None:
    """Open the store of the environment, see :class:`SnapshotSettings`.

    Args:
        url: the URL of the store if the environment names none.

    Returns:
        The store; None without a URL.

    Raises:
        SettingsError: a setting cannot be used.
    """
    settings = read_settings(SnapshotSettings)
    if not settings.snapshots_url:
        settings = msgspec.structs.replace(settings, snapshots_url=url)
    return SnapshotStore(settings) if settings.snapshots_url else None


def describe(file: Path, rows: int, url: str) -> Snapshot:
    """Return the snapshot that a table in a file is, in the store ``url``."""
    with file.open("rb") as opened:
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
        opened.seek(0)
        md5 = hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return Snapshot(url, sha256, md5, file.stat().st_size, rows)


def path_of(snapshot: Snapshot) -> str:
    """Return the path of a snapshot in the store, as DVC names it."""
    return f"files/md5/{snapshot.md5[:2]}/{snapshot.md5[2:]}"


def dvc_file(snapshot: Snapshot, name: str) -> str:
    """Return the text of the file by which ``dvc pull`` restores a snapshot as ``name``."""
    return f"outs:\n- md5: {snapshot.md5}\n  size: {snapshot.size}\n  hash: md5\n  path: {name}\n"


def _options(settings: SnapshotSettings) -> dict[str, Any]:
    if settings.snapshots_url.startswith("file://"):
        return {"mkdir": True}
    endpoint = settings.snapshots_endpoint
    given = {
        "endpoint": endpoint,
        "region": settings.snapshots_region,
        "access_key_id": settings.snapshots_access_key,
        "secret_access_key": settings.snapshots_secret_key,
    }
    return {
        "config": {name: value for name, value in given.items() if value},
        "client_options": {"timeout": TIMEOUT, "allow_http": endpoint.startswith("http://")},
        "retry_config": {"max_retries": _RETRIES},
    }
