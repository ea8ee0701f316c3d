"""The folder of a local system: which file lies where, and ``local.json``, what runs in it how.

``up`` writes ``local.json``; everybody else only reads it.
"""

import contextlib
import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from watchkeeper.contracts.folders import make_private
from watchkeeper.contracts.spool import replace_file
from watchkeeper.platforms.interface import PlatformError

S = TypeVar("S", bound=msgspec.Struct)

UNUSABLE = "*?[\n"  # supervisord takes the folder's path for a pattern


class Ports(msgspec.Struct, frozen=True):
    """The ports people know: V2 over HTTP and gRPC, the registry, the pages of the sidecars
    (``operations``), and the rollout controller's own metrics.
    """

    v2: int
    mlflow: int
    operations: int
    rollout: int


class Role(msgspec.Struct, frozen=True):
    """How a part of the system is started: its command without arguments, and what it is told."""

    command: tuple[str, ...]
    environment: dict[str, str] = {}


class Installation(msgspec.Struct, frozen=True):
    """``local.json``. The first of ``models`` answers to clients that name no host.

    ``sockets`` is a folder outside the home, because a socket's path must be short. ``roles`` are
    ``initialize``, ``server``, ``sidecar``, ``training`` and those that only ``up`` starts.
    """

    models: tuple[str, ...]
    sockets: str
    ports: Ports
    roles: dict[str, Role] = {}

    def role(self, name: str) -> Role:
        """Return a role.

        Raises:
            PlatformError: this system has none of that name.
        """
        if name not in self.roles:
            raise PlatformError(f"local.json has no role {name!r}: run 'watchkeeper up' again")
        return self.roles[name]


class Home:
    """The paths of one local system."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        if any(sign in str(self.folder) for sign in UNUSABLE):
            raise PlatformError(f"{self.folder}: a path with one of {UNUSABLE!r} cannot be a home")
        self.installation_file = self.folder / "local.json"
        self.endpoints_file = self.folder / "endpoints.json"
        self.logs = self.folder / "logs"
        self.supervisor = self.folder / "supervisor"
        self.programs = self.supervisor / "programs"
        self.gateway = self.folder / "gateway"
        self.routes = self.folder / "routes"
        self.runs = self.folder / "runs"
        self.serving = self.folder / "serving"
        self.leases = self.folder / "leases"
        self.secrets = self.folder / "secrets"
        self.mlflow = self.folder / "mlflow"

    def make(self) -> None:
        """Make the folders; only the user may look into them, for there are secrets inside."""
        make_private(self.folder)
        if self.folder.stat().st_mode & 0o077:
            self.folder.chmod(0o700)  # whoever put the first data here did not know that
        for path in (
            self.logs,
            self.supervisor,
            self.programs,
            self.gateway,
            self.routes,
            self.runs,
            self.serving,
            self.leases,
            self.secrets,
            self.mlflow,
        ):
            path.mkdir(exist_ok=True, mode=0o700)

    def log(self, program: str) -> Path:
        """Where a program's output goes."""
        return self.logs / f"{program}.log"

    def read_installation(self) -> Installation:
        """Read ``local.json``.

        Raises:
            PlatformError: there is none, or it cannot be read.
        """
        found = read_struct(self.installation_file, Installation)
        if found is None:
            raise PlatformError(f"{self.folder}: no local system here; run 'watchkeeper up' first")
        return found


@contextlib.contextmanager
def locked(path: Path, seconds: float) -> Iterator[bool]:
    """Hold the lock at ``path`` for a block, waiting for it up to ``seconds``.

    Gives False where somebody else kept it for longer: then the block must not do its work. A
    lock ends with the process that holds it.
    """
    deadline = time.monotonic() + seconds
    with path.open("wb") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    yield False
                    return
                time.sleep(0.02)
            else:
                yield True
                return


def sockets_folder(home: Path) -> Path:
    """Return the folder for a home's sockets, made if need be and closed to other users.

    Raises:
        PlatformError: somebody else owns a folder of that name.
    """
    digest = hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"watchkeeper-{os.getuid()}-{digest}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077 or folder.is_symlink():
        raise PlatformError(f"{folder}: must be a folder of mode 0700 of your own; remove it")
    return folder


def last_line(log: Path) -> str:
    """Return the last line of a log that says something, cut to 300 characters."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 8192))
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


def read_struct(path: Path, kind: type[S]) -> S | None:
    """Read a file that we wrote whole, None where there is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise PlatformError(f"{path}: {error}") from error


def write_struct(path: Path, value: msgspec.Struct) -> None:
    """Put a Struct at ``path`` in one step, readable for people."""
    replace_file(path, msgspec.json.format(msgspec.json.encode(value)) + b"\n")
