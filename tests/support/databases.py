"""Throw-away database servers for tests: real ones, in temporary folders, on free ports.

A pytest plugin for whichever component opens a ledger: ``pytest_plugins = ["databases"]`` in its
conftest.py. Servers run as an ordinary user (as ``nobody`` when the tests run as root, because
neither takes root), can be killed, frozen and started again, and end with the tests.

WATCHKEEPER_TEST_DATABASES=required makes a missing server a failure instead of a skip.
"""

import contextlib
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import pytest

HOST = "127.0.0.1"
STRANGER = "stranger"  # the one user that is asked for a password
START_SECONDS = 90.0
REQUIRED = os.environ.get("WATCHKEEPER_TEST_DATABASES") == "required"
KINDS = ("sqlite", "postgresql", "mariadb")


class DatabaseMissingError(Exception):
    """The server's programs are not on this machine."""


class Server(ABC):
    """One server with its own folder and port."""

    kind: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = _free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._frozen: list[int] = []
        if os.geteuid() == 0:
            os.chown(folder, pwd.getpwnam("nobody").pw_uid, -1)
        self.prepare()
        self.start()

    @abstractmethod
    def prepare(self) -> None:
        """Make the empty data folder."""

    @abstractmethod
    def command(self) -> list[str]:
        """Say how to run the server in the foreground."""

    @abstractmethod
    def url(self, database: str) -> str:
        """Return the SQLAlchemy URL of a database."""

    @abstractmethod
    def execute(self, *statements: str) -> None:
        """Run statements as the server's administrator; raises when it does not answer."""

    def create(self) -> str:
        """Make an empty database and return its URL."""
        name = f"t{uuid.uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                _as_user(self.command()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return self.execute("SELECT 1")
            except Exception as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    said = (self.folder / "log").read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"{self.kind} does not answer: {error}\n{said}") from error
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill it and all its processes with SIGKILL, as a crash would."""
        self.thaw()
        if self.process is None:
            return
        family = _family(self.process.pid)
        for pid in family:
            _signal(pid, signal.SIGKILL)
        self.process.wait(timeout=30)
        deadline = time.monotonic() + 30
        while any(_alive(pid) for pid in family[1:]) and time.monotonic() < deadline:
            time.sleep(0.01)
        self.process = None

    def restart(self) -> None:
        """Kill it and start it again on the same port."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """Stop every process of the server in the middle of what it does."""
        assert self.process is not None
        self._frozen = _family(self.process.pid)
        for pid in self._frozen:
            _signal(pid, signal.SIGSTOP)

    @abstractmethod
    def limit_growth(self, size: int | None) -> None:
        """Leave room for about ``size`` bytes, as a disk that is nearly full; None: as before."""

    def thaw(self) -> None:
        """Let a frozen server go on."""
        for pid in self._frozen:
            _signal(pid, signal.SIGCONT)
        self._frozen = []


class PostgreSQL(Server):
    """PostgreSQL; what it has committed survives a kill of its processes."""

    kind = "postgresql"

    def prepare(self) -> None:
        self._bin = _postgresql()
        options = ["-D", "data", "-U", "tests", "--auth=trust", "-E", "UTF8", "--locale=C"]
        _run([str(self._bin / "initdb"), *options, "--no-sync"], self.folder)
        rules = self.folder / "data" / "pg_hba.conf"
        rules.write_text(f"host all {STRANGER} all scram-sha-256\n{rules.read_text()}")

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": HOST,
            "port": self.port,
            "unix_socket_directories": "",
            "fsync": "off",  # the kernel keeps what a killed server wrote
            "shared_buffers": "32MB",
            "max_connections": 60,
        }
        options = [f for k, v in settings.items() for f in ("-c", f"{k}={v}")]
        return [str(self._bin / "postgres"), "-D", "data", *options]

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://tests@{HOST}:{self.port}/{database}"

    def limit_growth(self, size: int | None) -> None:
        assert self.process is not None
        limit = "unlimited" if size is None else str(size)
        for pid in _family(self.process.pid):  # no file grows larger than that
            try:
                _run(["prlimit", "--pid", str(pid), f"--fsize={limit}:"], self.folder)
            except RuntimeError:
                if _alive(pid):  # some of its workers come and go
                    raise

    def execute(self, *statements: str) -> None:
        import psycopg  # noqa: PLC0415 - only where this server is

        with psycopg.connect(
            host=HOST,
            port=self.port,
            user="tests",
            dbname="postgres",
            connect_timeout=5,
            autocommit=True,
        ) as connection:
            for statement in statements:
                connection.execute(statement.encode())


class MariaDB(Server):
    """MariaDB; what it has committed survives a kill of its processes."""

    kind = "mariadb"

    def prepare(self) -> None:
        self._program = _mariadb()
        self._most = ""
        options = ["--no-defaults", f"--datadir={self.folder}/data", "--skip-test-db"]
        _run(
            ["mariadb-install-db", *options, "--auth-root-authentication-method=normal"],
            self.folder,
        )

    def command(self) -> list[str]:
        settings = {
            "datadir": self.folder / "data",
            "socket": self.folder / "socket",
            "pid-file": self.folder / "pid",
            "port": self.port,
            "bind-address": HOST,
            "innodb-buffer-pool-size": "32M",
            "innodb-flush-log-at-trx-commit": 2,  # the kernel keeps what a killed server wrote
            "innodb-log-file-size": "8M",
            "innodb-file-per-table": 0,  # all tables in one file, whose size can be limited
            "innodb-data-file-path": f"ibdata1:12M:autoextend{self._most}",
        }
        options = [f"--{key}={value}" for key, value in settings.items()]
        return [self._program, "--no-defaults", *options]

    def url(self, database: str) -> str:
        return f"mysql+pymysql://root@{HOST}:{self.port}/{database}"

    def limit_growth(self, size: int | None) -> None:
        used = (self.folder / "data" / "ibdata1").stat().st_size
        self._most = "" if size is None else f":max:{-(-(used + size) // 2**20)}M"
        self.restart()

    def execute(self, *statements: str) -> None:
        import pymysql  # noqa: PLC0415 - only where this server is

        with (
            pymysql.connect(
                host=HOST, port=self.port, user="root", connect_timeout=5, read_timeout=10
            ) as connection,
            connection.cursor() as cursor,
        ):
            for statement in statements:
                cursor.execute(statement)
            connection.commit()


@contextlib.contextmanager
def running(kind: str) -> Iterator[Server]:
    """Run a server; skip the test, or fail it where servers are required, if there is none."""
    # A short path: sockets have room for about a hundred characters.
    folder = Path(tempfile.mkdtemp(prefix=f"{kind}-"))
    server: Server | None = None
    try:
        server = PostgreSQL(folder) if kind == "postgresql" else MariaDB(folder)
        yield server
    except DatabaseMissingError as missing:
        if REQUIRED:
            pytest.fail(str(missing))
        pytest.skip(str(missing))
    finally:
        if server is not None:
            server.kill()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A PostgreSQL for all tests that leave it running."""
    with running("postgresql") as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[Server]:
    """A MariaDB for all tests that leave it running."""
    with running("mariadb") as server:
        yield server


@pytest.fixture(params=KINDS)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, on each kind of database in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    server: Server = request.getfixturevalue(request.param)
    return server.create()


@pytest.fixture(params=KINDS[1:])
def server(request: pytest.FixtureRequest) -> Server:
    """Each kind of server in turn; whoever kills or freezes it starts it again."""
    found: Server = request.getfixturevalue(request.param)
    return found


def _postgresql() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    if found:
        return found[-1].parent
    if elsewhere := shutil.which("initdb"):
        return Path(elsewhere).resolve().parent
    raise DatabaseMissingError("there is no PostgreSQL server here: 'make databases' installs it")


def _mariadb() -> str:
    program = shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if program is None or shutil.which("mariadb-install-db") is None:
        raise DatabaseMissingError("there is no MariaDB server here: 'make databases' installs it")
    return program


def _as_user(command: list[str]) -> list[str]:
    if os.geteuid() != 0:
        return command
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *command]


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(
        _as_user(command),
        cwd=folder,
        check=False,
        timeout=START_SECONDS,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stdout.decode(errors='replace')[-2000:]}")


def _free_port() -> int:
    """Choose below the ports that others get for their connections while a server is down."""
    for port in random.sample(range(20000, 32000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return port
    raise RuntimeError("no free port between 20000 and 32000")


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _family(leader: int) -> list[int]:
    """List a living process and its children, itself first; PostgreSQL's are leaders too."""
    found = [leader]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if int(parent) == leader and state != "Z":
                    found.append(int(entry.name))
    return found
