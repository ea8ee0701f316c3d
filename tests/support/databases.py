"""Temporary PostgreSQL and MariaDB servers for tests.

A pytest plugin: ``pytest_plugins = ["databases"]`` in a conftest.py. Each server has a temporary
folder and a free port, can be killed, frozen and restarted, and ends with the tests. If the tests
run as root, the servers run as ``nobody``, because both refuse to run as root.

If a server is not installed, its tests are skipped. With WATCHKEEPER_TEST_DATABASES=required they
fail instead.
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
STRANGER = "stranger"  # the only user that needs a password
START_SECONDS = 90.0
REQUIRED = os.environ.get("WATCHKEEPER_TEST_DATABASES") == "required"
KINDS = ("sqlite", "postgresql", "mariadb")


class DatabaseMissingError(Exception):
    """The programs of a server are not installed."""


class Server(ABC):
    """A server with a folder and a port; ``options`` of its command apply to the next start."""

    kind: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = _free_port()
        self.options: list[str] = []
        self.process: subprocess.Popen[bytes] | None = None
        self._frozen: list[int] = []
        if os.geteuid() == 0:
            os.chown(folder, pwd.getpwnam("nobody").pw_uid, -1)
        self.prepare()
        self.start()

    @abstractmethod
    def prepare(self) -> None:
        """Create the empty data folder."""

    @abstractmethod
    def command(self) -> list[str]:
        """Return the command that runs the server in the foreground."""

    @abstractmethod
    def url(self, database: str) -> str:
        """Return the SQLAlchemy URL of a database."""

    @abstractmethod
    def execute(self, *statements: str) -> None:
        """Run statements as administrator.

        Raises:
            Exception: the server does not answer; the type is that of its driver.
        """

    def create(self) -> str:
        """Create an empty database and return its URL."""
        name = f"t{uuid.uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                as_user([*self.command(), *self.options]),
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
                    log_end = (self.folder / "log").read_text(errors="replace")[-2000:]
                    raise RuntimeError(
                        f"{self.kind} does not answer: {error}\n{log_end}"
                    ) from error
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill all processes of the server with SIGKILL."""
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
        """Kill the server and start it again on the same port."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """Stop all processes of the server with SIGSTOP."""
        assert self.process is not None
        self._frozen = _family(self.process.pid)
        for pid in self._frozen:
            _signal(pid, signal.SIGSTOP)

    def give(self, name: str, content: bytes) -> Path:
        """Write a file that only the server can read, and return its path."""
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_bytes(content)
        shutil.chown(path, self.folder.owner())
        return path

    @abstractmethod
    def limit_growth(self, size: int | None) -> None:
        """Let the data grow by about ``size`` bytes, like a full disk; None removes the limit."""

    def thaw(self) -> None:
        """Continue a frozen server."""
        for pid in self._frozen:
            _signal(pid, signal.SIGCONT)
        self._frozen = []


class PostgreSQL(Server):
    """PostgreSQL. Committed data survives a kill of its processes."""

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
            "fsync": "off",  # a kill does not lose what the kernel has
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
        for pid in _family(self.process.pid):  # the largest size of a file
            try:
                _run(["prlimit", "--pid", str(pid), f"--fsize={limit}:"], self.folder)
            except RuntimeError:
                if _alive(pid):  # workers may have ended
                    raise

    def execute(self, *statements: str) -> None:
        import psycopg  # noqa: PLC0415 - only some projects have this driver

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
    """MariaDB. Committed data survives a kill of its processes."""

    kind = "mariadb"

    def prepare(self) -> None:
        self._program = _mariadb()
        self._limit = ""
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
            "innodb-flush-log-at-trx-commit": 2,  # a kill does not lose what the kernel has
            "innodb-log-file-size": "8M",
            "innodb-file-per-table": 0,  # one file for all tables, whose size has a limit
            "innodb-data-file-path": f"ibdata1:12M:autoextend{self._limit}",
        }
        options = [f"--{key}={value}" for key, value in settings.items()]
        return [self._program, "--no-defaults", *options]

    def url(self, database: str) -> str:
        return f"mysql+pymysql://root@{HOST}:{self.port}/{database}"

    def limit_growth(self, size: int | None) -> None:
        used = (self.folder / "data" / "ibdata1").stat().st_size
        self._limit = "" if size is None else f":max:{-(-(used + size) // 2**20)}M"
        self.restart()

    def execute(self, *statements: str) -> None:
        import pymysql  # noqa: PLC0415 - only some projects have this driver

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
    """Run a server for a block; skip or fail the test if it is not installed."""
    # A short path: the path of a socket has at most about a hundred characters.
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
    """A PostgreSQL for all tests of the session; a test that stops it must restart it."""
    with running("postgresql") as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[Server]:
    """A MariaDB for all tests of the session; a test that stops it must restart it."""
    with running("mariadb") as server:
        yield server


@pytest.fixture(params=KINDS)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, for each kind of database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    server: Server = request.getfixturevalue(request.param)
    return server.create()


@pytest.fixture(params=KINDS[1:])
def server(request: pytest.FixtureRequest) -> Server:
    """A server of each kind; a test that stops it must restart it."""
    found: Server = request.getfixturevalue(request.param)
    return found


def _postgresql() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    if found:
        return found[-1].parent
    if elsewhere := shutil.which("initdb"):
        return Path(elsewhere).resolve().parent
    raise DatabaseMissingError("PostgreSQL is not installed; run 'make databases'")


def _mariadb() -> str:
    program = shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if program is None or shutil.which("mariadb-install-db") is None:
        raise DatabaseMissingError("MariaDB is not installed; run 'make databases'")
    return program


def as_user(command: list[str]) -> list[str]:
    """Return a command that runs another one as ``nobody``, if this process is root's."""
    if os.geteuid() != 0:
        return command
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *command]


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(
        as_user(command),
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
    """Return a port below the ephemeral ports, so that it stays free during a restart."""
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
    """Return the pids of a process and its running children, the process first.

    A process group is not enough: each child of PostgreSQL has a group of its own.
    """
    found = [leader]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if int(parent) == leader and state != "Z":
                    found.append(int(entry.name))
    return found
