"""The store of snapshots: a folder or a bucket of S3 with the training tables of versions.

Objects are named by their content, in the layout of a remote of DVC (``files/md5/ab/cdef…``), and
are written once: two versions that were trained on the same rows have one object.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, cast
from urllib.parse import unquote, urlsplit

import msgspec
import obstore
from msgspec import Meta
from obstore import exceptions
from obstore.store import LocalStore, ObjectStore, S3Store

from watchkeeper.core.settings import SettingsError, read_settings
from watchkeeper.core.snapshot import Snapshot

if TYPE_CHECKING:
    from obstore.store import S3Config

SCHEMES: Final = ("file:///", "s3://")
# Of a whole transfer: a table may have hundreds of megabytes. An address that nobody answers is
# noticed earlier.
TRANSFER_TIMEOUT: Final = "30m"
CONNECT_TIMEOUT: Final = "10s"
_RETRIES: Final = 3
_REFUSALS: Final = (
    exceptions.PermissionDeniedError,
    exceptions.UnauthenticatedError,
    exceptions.UnknownConfigurationKeyError,
    FileExistsError,
    FileNotFoundError,
    NotADirectoryError,
    PermissionError,
)


class SnapshotSettings(msgspec.Struct, frozen=True):
    """Where the snapshots are. Without keys, Amazon's variables and identities are used."""

    snapshots_url: Annotated[
        str,
        Meta(
            description="Where the training tables of versions are stored: `file:///folder` or "
            "`s3://bucket/folder`. Empty: nowhere."
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
        """Check the settings; this contacts nobody.

        Raises:
            SettingsError: the URL is of no kind that is supported, or malformed.
        """
        self.url = settings.snapshots_url.rstrip("/")
        self._settings = settings
        if not self.url.startswith(SCHEMES):
            raise SettingsError(
                f"WATCHKEEPER_SNAPSHOTS_URL={self.url!r}: must begin with {' or '.join(SCHEMES)}"
            )

    def put(self, file: Path, snapshot: Snapshot) -> None:
        """Store a table, unless the store has it already.

        Args:
            file: the table.
            snapshot: what :meth:`describe` says of it.

        Raises:
            SnapshotError: the store did not answer; the same call can be repeated.
            RefusedSnapshotError: the store refuses, the bucket does not exist, or the object has
                another size.
        """
        path = path_of(snapshot)
        with self._translated_errors(f"cannot write {path}"):
            store = self._open(create=True)
            try:
                # One request, so that the object appears whole. The store never replaces one.
                obstore.put(store, path, file, mode="create", use_multipart=False)
            except exceptions.AlreadyExistsError:
                size = obstore.head(store, path)["size"]
            else:
                size = snapshot.size
        if size != snapshot.size:
            raise RefusedSnapshotError(
                f"{self.url}/{path} has {size} bytes, and not {snapshot.size}: somebody has "
                "changed it; remove it, so that it can be written again"
            )

    def get(self, snapshot: Snapshot, file: Path) -> None:
        """Restore a table, whole or not at all.

        Args:
            snapshot: the table.
            file: where it is written; a file that exists is replaced.

        Raises:
            SnapshotError: the store does not answer.
            RefusedSnapshotError: the store refuses, has no such object, or has one with other
                content under its name.
            OSError: the file cannot be written.
        """
        path, found = path_of(snapshot), hashlib.sha256()
        draft = file.with_name(f".{file.name}.draft")
        try:
            with draft.open("wb") as written:
                for part in self._parts(path):
                    found.update(part)
                    written.write(part)
            if found.hexdigest() != snapshot.sha256:
                raise RefusedSnapshotError(
                    f"{self.url}/{path}: its SHA-256 is {found.hexdigest()}, that of the version "
                    f"is {snapshot.sha256}: somebody has changed it"
                )
            draft.replace(file)
        finally:
            draft.unlink(missing_ok=True)

    def describe(self, file: Path, rows: int) -> Snapshot:
        """Return the snapshot of a table in this store, without storing it.

        Args:
            file: the table.
            rows: the number of its rows.
        """
        with file.open("rb") as opened:
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
            opened.seek(0)
            md5 = hashlib.file_digest(opened, _md5).hexdigest()
        return Snapshot(self.url, sha256, md5, file.stat().st_size, rows)

    def _parts(self, path: str) -> Iterator[bytes]:
        with self._translated_errors(f"cannot read {path}"):
            for part in obstore.get(self._open(), path):
                yield bytes(part)

    def _open(self, *, create: bool = False) -> ObjectStore:
        if self.url.startswith("file:///"):
            folder = Path(unquote(urlsplit(self.url).path))
            if create:
                folder.mkdir(parents=True, exist_ok=True)
            return LocalStore(folder)
        config = {
            "endpoint": self._settings.snapshots_endpoint,
            "region": self._settings.snapshots_region,
            "access_key_id": self._settings.snapshots_access_key,
            "secret_access_key": self._settings.snapshots_secret_key,
        }
        return S3Store.from_url(
            self.url,
            config=cast("S3Config", {name: x for name, x in config.items() if x}),
            client_options={
                "timeout": TRANSFER_TIMEOUT,
                "connect_timeout": CONNECT_TIMEOUT,
                "allow_http": self._settings.snapshots_endpoint.startswith("http://"),
            },
            retry_config={"max_retries": _RETRIES},
        )

    @contextmanager
    def _translated_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except (exceptions.BaseError, OSError, ValueError) as error:
            reason = f"{self.url}: {what}: {str(error).partition(chr(10))[0]}"
            if isinstance(error, _REFUSALS):
                raise RefusedSnapshotError(reason) from error
            raise SnapshotError(reason) from error


def open_snapshots() -> SnapshotStore | None:
    """Open the store that the environment names, see :class:`SnapshotSettings`.

    Returns:
        The store; None without a URL.

    Raises:
        SettingsError: a setting cannot be used.
    """
    settings = read_settings(SnapshotSettings)
    return SnapshotStore(settings) if settings.snapshots_url else None


def path_of(snapshot: Snapshot) -> str:
    """Return the path of a snapshot in the store, as DVC names it."""
    return f"files/md5/{snapshot.md5[:2]}/{snapshot.md5[2:]}"


def dvc_file(snapshot: Snapshot, name: str) -> str:
    """Return the text of the file by which ``dvc pull`` restores a snapshot as ``name``."""
    return f"outs:\n- md5: {snapshot.md5}\n  size: {snapshot.size}\n  hash: md5\n  path: {name}\n"


def _md5() -> Any:
    return hashlib.md5(usedforsecurity=False)
