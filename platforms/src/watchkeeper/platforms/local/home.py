"""The folder of a local system: its paths, its configuration ``local.json``, files and locks.

``watchkeeper up`` writes ``local.json``. All other processes only read it.
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

from watchkeeper.core.adoption import TRUSTED_CODE
from watchkeeper.core.folders import make_private
from watchkeeper.core.logs import message_of
from watchkeeper.core.spool import replace_file
from watchkeeper.platforms.interface import PlatformError

S = TypeVar("S", bound=msgspec.Struct)

UNUSABLE = "*?[\n"  # supervisord reads the folder's path as a pattern


class Ports(msgspec.Struct, frozen=True):
    """The ports that people and clients use.

    Attributes:
        v2: V2 over HTTP and gRPC, for all models.
        mlflow: The registry.
        operations: Pages and metrics of the sidecars.
        rollout: Metrics of the rollout controller.
    """

    v2: int
    mlflow: int
    operations: int
    rollout: int


class Role(msgspec.Struct, frozen=True):
    """How a component is started: its command without arguments, and its environment."""

    command: tuple[str, ...]
    environment: dict[str, str] = {}


class LocalConfig(msgspec.Struct, frozen=True):
    """The configuration of a local system, stored in ``local.json``.

    Attributes:
        models: The models. The first one answers clients that name no host.
        sockets: Folder of the Unix sockets. It is outside of the home, because the path of a socket
            must be short.
        ports: The ports that people and clients use.
        roles: The components by name: ``initialize``, ``server``, ``sidecar``, ``training``,
            ``check``, and those that only ``watchkeeper up`` starts.
        projects: The variables of ``training`` and ``check`` for models whose packages are not
            installed, by model: they say where the package and its data are.
    """

    models: tuple[str, ...]
    sockets: str
    ports: Ports
    roles: dict[str, Role] = {}
    projects: dict[str, dict[str, str]] = {}

    def role(self, name: str) -> Role:
        """Return a role.

        Raises:
            PlatformError: The system does not have it.
        """
        if name not in self.roles:
            raise PlatformError(f"local.json has no role {name!r}: run 'watchkeeper up' again")
        return self.roles[name]

    def role_for(self, name: str, model: str) -> Role:
        """Return a role with the variables of a model.

        Raises:
            PlatformError: The system does not have the role.
        """
        role = self.role(name)
        return Role(role.command, {**role.environment, **self.projects.get(model, {})})

    def trust(self, model: str) -> dict[str, str]:
        """Return the variables of a server that may execute the code of a model's versions."""
        own = self.projects.get(model, {})
        return {TRUSTED_CODE: own[TRUSTED_CODE]} if TRUSTED_CODE in own else {}


class Home:
    """The paths of a local system.

    Raises:
        PlatformError: supervisord cannot use the path.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        if any(character in str(self.folder) for character in UNUSABLE):
            raise PlatformError(
                f"{self.folder}: the path of a home must not contain one of {UNUSABLE!r}"
            )
        self.config_file = self.folder / "local.json"
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
        self.projects = self.folder / "projects"

    def make(self) -> None:
        """Create the folders. Only their owner can read them, because they contain secrets."""
        make_private(self.folder)
        if self.folder.stat().st_mode & 0o077:
            self.folder.chmod(0o700)  # the folder may have existed before, with data for `up`
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
            self.projects,
        ):
            path.mkdir(exist_ok=True, mode=0o700)

    def log(self, program: str) -> Path:
        """Return the log file of a program."""
        return self.logs / f"{program}.log"

    def read_config(self) -> LocalConfig:
        """Return the configuration.

        Raises:
            PlatformError: ``local.json`` does not exist or cannot be decoded.
        """
        found = read_struct(self.config_file, LocalConfig)
        if found is None:
            raise PlatformError(f"{self.folder}: no local system here; run 'watchkeeper up' first")
        return found


@contextlib.contextmanager
def locked(path: Path, seconds: float) -> Iterator[bool]:
    """Hold the lock file at ``path`` during a block. The lock ends with the process at the latest.

    Args:
        path: The lock file; it is created if it does not exist.
        seconds: How long to wait for another holder.

    Yields:
        Whether this process holds the lock. If False, the block must not do its work.
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
    """Create and return the folder of a home's sockets, closed to other users.

    Raises:
        PlatformError: Another user owns a folder of that name.
    """
    digest = hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"watchkeeper-{os.getuid()}-{digest}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077 or folder.is_symlink():
        raise PlatformError(
            f"{folder}: must be a folder with mode 0700 that belongs to you; remove it"
        )
    return folder


def last_message(log: Path) -> str:
    """Return the message in the last line of a log, without its time and its source."""
    return message_of(last_line(log, limit=1000))


def last_line(log: Path, limit: int = 300) -> str:
    """Return the last line of a log that is not empty, at most ``limit`` characters."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 8192))
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    return next((line.strip()[:limit] for line in reversed(lines) if line.strip()), "")


def read_struct(path: Path, kind: type[S]) -> S | None:
    """Decode a JSON file as ``kind``; return None if the file does not exist.

    Raises:
        PlatformError: The file cannot be read or decoded.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise PlatformError(f"{path}: {error}") from error


def write_struct(path: Path, value: msgspec.Struct) -> None:
    """Replace the file at ``path`` by ``value`` as indented JSON, in one step."""
    replace_file(path, msgspec.json.format(msgspec.json.encode(value)) + b"\n")
