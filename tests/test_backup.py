"""Backup and restore of the embedded PostgreSQL, by the scripts of its image, on a real server."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from databases import HOST, PostgreSQL, running

SCRIPTS: Final = Path(__file__).parents[1] / "images/postgresql"
DATABASES: Final = ("mlflow", "ledger")
PROGRAMS: Final = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
ROWS: Final = [(number, f"row {number}") for number in range(100)]

pytestmark = pytest.mark.skipif(not PROGRAMS, reason="PostgreSQL is missing; run `make databases`")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    with running("postgresql") as made:
        assert isinstance(made, PostgreSQL)
        yield made


class Installation:
    """Two databases with a table each, and a folder of backups."""

    def __init__(self, server: PostgreSQL, folder: Path) -> None:
        self.server = server
        self.backups = folder / "backups"
        self.backups.mkdir()
        self.password = folder / "password"
        self.password.write_text("a:pass\\word")
        self.folder = folder

    def run(self, script: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a script of the image."""
        environment = {
            "PATH": f"{PROGRAMS[-1]}:{os.environ['PATH']}",
            "TMPDIR": str(self.folder),
            "PGHOST": HOST,
            "PGPORT": str(self.server.port),
            "PGUSER": "tests",
            "POSTGRESQL_PASSWORD_FILE": str(self.password),
            "BACKUPS": str(self.backups),
        }
        return subprocess.run(
            [SCRIPTS / script],
            env=environment | settings,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def backup(self, name: str = "", **settings: str) -> str:
        """Make a backup; return its name, or rename it to ``name``."""
        before = set(self.names())
        done = self.run("backup", **settings)
        assert done.returncode == 0, done.stderr
        (made,) = set(self.names()) - before
        if name:
            (self.backups / made).rename(self.backups / name)
        return name or made

    def names(self) -> list[str]:
        return sorted(each.name for each in self.backups.iterdir() if each.name != ".lock")

    def connect(self, database: str) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host=HOST, port=self.server.port, user="tests", dbname=database, autocommit=True
        )

    def execute(self, database: str, statement: str) -> list[Any]:
        with self.connect(database) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def rows(self, database: str) -> list[Any]:
        return self.execute(database, "SELECT * FROM kept ORDER BY number")

    def databases(self) -> set[str]:
        statement = "SELECT datname FROM pg_database WHERE NOT datistemplate"
        return {name for (name,) in self.execute("postgres", statement)} - {"postgres"}


@pytest.fixture
def made(server: PostgreSQL, tmp_path: Path) -> Iterator[Installation]:
    installation = Installation(server, tmp_path)
    for database in DATABASES:
        installation.execute("postgres", f"CREATE DATABASE {database}")
        fill(installation, database)
    yield installation
    for database in installation.databases():
        installation.execute("postgres", f'DROP DATABASE "{database}" WITH (FORCE)')


def fill(installation: Installation, database: str) -> None:
    with installation.connect(database) as connection:
        connection.execute("CREATE TABLE kept (number integer PRIMARY KEY, text text)")
        connection.cursor().executemany("INSERT INTO kept VALUES (%s, %s)", ROWS)


def replaced(installation: Installation) -> set[str]:
    return {name.partition("_replaced_")[0] for name in installation.databases() - set(DATABASES)}


@pytest.mark.nightly
def test_users_that_no_longer_exist_own_their_tables_again_and_cannot_log_in(
    made: Installation,
) -> None:
    users = ("Own-er", "ledger-writer-gone")
    for user in users:
        made.execute("postgres", f'CREATE ROLE "{user}" LOGIN')
    made.execute("ledger", f'ALTER TABLE kept OWNER TO "{users[0]}"')
    made.execute("ledger", "ALTER TABLE kept ENABLE ROW LEVEL SECURITY")
    made.execute("ledger", f'CREATE POLICY own ON kept TO "{users[1]}" USING (number = 1)')
    made.execute("ledger", f'GRANT SELECT ON kept TO "{users[1]}"')
    made.backup()
    made.execute("postgres", "DROP DATABASE ledger")
    made.execute("postgres", "CREATE DATABASE ledger")
    for user in users:
        made.execute("postgres", f'DROP ROLE "{user}"')
    done = made.run("restore")
    assert done.returncode == 0, done.stderr
    assert made.rows("ledger") == ROWS
    owner = "SELECT tableowner FROM pg_tables WHERE tablename = 'kept'"
    assert made.execute("ledger", owner) == [(users[0],)]
    able = "SELECT rolname FROM pg_roles WHERE rolcanlogin"
    assert not set(users) & {name for (name,) in made.execute("postgres", able)}
    made.execute("postgres", "DROP DATABASE ledger WITH (FORCE)")
    for database in made.databases():
        if database.startswith("ledger"):
            made.execute("postgres", f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS true')
            made.execute("postgres", f'DROP DATABASE "{database}" WITH (FORCE)')
    for user in users:
        made.execute("postgres", f'DROP ROLE "{user}"')


def test_what_was_dropped_and_changed_is_there_again(made: Installation) -> None:
    made.backup()
    made.execute("ledger", "DROP TABLE kept")
    made.execute("mlflow", "DELETE FROM kept WHERE number > 50")
    done = made.run("restore")
    assert done.returncode == 0, done.stderr
    assert [made.rows(database) for database in DATABASES] == [ROWS, ROWS]


def test_an_empty_server_is_restored(made: Installation) -> None:
    name = made.backup()
    for database in DATABASES:
        made.execute("postgres", f"DROP DATABASE {database}")
    done = made.run("restore")
    assert done.returncode == 0, done.stderr
    assert f"backup {name} is restored" in done.stdout
    assert made.databases() == set(DATABASES)
    assert [made.rows(database) for database in DATABASES] == [ROWS, ROWS]


@pytest.mark.nightly
def test_the_replaced_databases_are_kept_and_closed(made: Installation) -> None:
    made.backup()
    made.execute("ledger", "INSERT INTO kept VALUES (1000, 'newer')")
    assert made.run("restore").returncode == 0
    assert replaced(made) == set(DATABASES)
    (name,) = (each for each in made.databases() if each.startswith("ledger_replaced_"))
    with pytest.raises(psycopg.OperationalError, match="not currently accepting connections"):
        made.connect(name)
    made.execute("postgres", f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    assert len(made.rows(name)) == len(ROWS) + 1


@pytest.mark.nightly
def test_sessions_of_writers_end_and_new_ones_use_the_restored_database(
    made: Installation,
) -> None:
    made.backup()
    with made.connect("ledger") as writer:
        writer.execute("BEGIN")
        writer.execute("INSERT INTO kept VALUES (1000, 'not committed')")
        assert made.run("restore").returncode == 0
        with pytest.raises(psycopg.OperationalError):
            writer.execute("SELECT 1")
    made.execute("ledger", "INSERT INTO kept VALUES (1001, 'after')")
    assert len(made.rows("ledger")) == len(ROWS) + 1


@pytest.mark.nightly
def test_owner_and_rights_of_a_database_stay(made: Installation) -> None:
    made.execute("postgres", "CREATE ROLE reader LOGIN")
    made.execute("postgres", "CREATE ROLE owner LOGIN")
    try:
        made.execute("postgres", "ALTER DATABASE ledger OWNER TO owner")
        made.execute("postgres", "REVOKE ALL ON DATABASE ledger FROM PUBLIC")
        made.execute("postgres", "GRANT CONNECT ON DATABASE ledger TO reader")
        made.execute("ledger", "GRANT SELECT ON kept TO reader")
        before = rights(made)
        made.backup()
        assert made.run("restore").returncode == 0
        assert rights(made) == before
    finally:
        for database in made.databases():
            made.execute("postgres", f'DROP DATABASE "{database}" WITH (FORCE)')
        made.execute("postgres", "DROP ROLE reader")
        made.execute("postgres", "DROP ROLE owner")


def rights(made: Installation) -> list[Any]:
    of_database = "SELECT pg_get_userbyid(datdba), a.* FROM pg_database, aclexplode(datacl) a"
    where = "WHERE datname = 'ledger' ORDER BY grantee, privilege_type"
    of_table = "SELECT relacl::text FROM pg_class WHERE relname = 'kept'"
    return made.execute("postgres", f"{of_database} {where}") + made.execute("ledger", of_table)


@pytest.mark.nightly
def test_a_named_backup_is_restored(made: Installation) -> None:
    first = made.backup("20260101T000000Z")
    made.execute("ledger", "DELETE FROM kept")
    made.backup()
    assert made.run("restore").returncode == 0
    assert made.rows("ledger") == []
    assert made.run("restore", BACKUP=first).returncode == 0
    assert made.rows("ledger") == ROWS
    done = made.run("restore", BACKUP="20200101T000000Z")
    assert done.returncode == 1
    assert "there is no backup 20200101T000000Z" in done.stderr
    assert first in done.stderr


def test_the_oldest_backups_are_deleted_and_the_new_one_is_not(made: Installation) -> None:
    old = [made.backup(f"2026010{day}T000000Z") for day in range(1, 4)]
    future = made.backup("20990101T000000Z")  # a clock was wrong
    new = made.backup(KEEP="3")
    assert made.names() == sorted([old[-1], new, future])


def test_a_backup_of_an_empty_database_fails_and_deletes_nothing(made: Installation) -> None:
    old = [made.backup(f"2026010{day}T000000Z") for day in range(1, 3)]
    made.execute("ledger", "DROP TABLE kept")
    done = made.run("backup", KEEP="1")
    assert done.returncode == 1
    assert "the database ledger has no tables" in done.stderr
    assert made.names() == old


@pytest.mark.nightly
def test_a_backup_of_a_missing_database_fails_and_deletes_nothing(made: Installation) -> None:
    old = made.backup("20260101T000000Z")
    done = made.run("backup", KEEP="1", POSTGRESQL_DATABASES="mlflow other")
    assert done.returncode == 1
    assert "the database other was not dumped; earlier backups are kept" in done.stderr
    assert made.names() == [old]


@pytest.mark.nightly
def test_a_run_that_was_killed_leaves_nothing_behind(made: Installation) -> None:
    (made.backups / ".new").mkdir()
    (made.backups / ".new/ledger.dump").write_text("half")
    (made.backups / ".old").mkdir()
    name = made.backup()
    assert made.names() == [name]


@pytest.mark.parametrize("broken", ["cut", "missing"])
def test_a_damaged_backup_changes_nothing(made: Installation, broken: str) -> None:
    name = made.backup()
    file = made.backups / name / "ledger.dump"
    if broken == "cut":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    else:
        file.unlink()
    made.execute("mlflow", "DELETE FROM kept")
    done = made.run("restore")
    assert done.returncode == 1
    assert f"the dump of ledger in backup {name} cannot be read; nothing has changed" in done.stderr
    assert made.rows("mlflow") == []
    assert made.databases() == set(DATABASES)


@pytest.mark.nightly
def test_databases_that_a_killed_restore_has_closed_are_opened_by_the_next_one(
    made: Installation,
) -> None:
    made.execute("postgres", "ALTER DATABASE ledger ALLOW_CONNECTIONS false")
    done = made.run("restore", BACKUP="none")
    assert done.returncode == 1
    assert "there is no backup none" in done.stderr
    assert made.rows("ledger") == ROWS


@pytest.mark.nightly
def test_a_restore_that_fails_leaves_the_databases_open(made: Installation) -> None:
    made.execute("postgres", "CREATE ROLE gone")
    made.execute("ledger", "ALTER TABLE kept OWNER TO gone")
    (made.backups / made.backup() / "users").unlink()
    made.execute("ledger", "ALTER TABLE kept OWNER TO tests")
    made.execute("postgres", "DROP ROLE gone")
    done = made.run("restore")
    assert done.returncode == 1
    assert 'role "gone" does not exist' in done.stderr
    assert "the present databases have not changed" in done.stderr
    assert made.rows("ledger") == ROWS
    made.execute("postgres", "CREATE ROLE gone")
    assert made.run("restore").returncode == 0, "it can be repeated"
    for database in made.databases():
        made.execute("postgres", f'DROP DATABASE "{database}" WITH (FORCE)')
    made.execute("postgres", "DROP ROLE gone")


def test_the_password_is_in_no_environment_and_no_command_line(made: Installation) -> None:
    """Programs in front of those of PostgreSQL show what they get."""
    shown = made.folder / "shown"
    for program in ("pg_dump", "pg_restore", "psql", "vacuumdb"):
        fake = made.folder / "fakes" / program
        fake.parent.mkdir(exist_ok=True)
        real = PROGRAMS[-1] / program
        fake.write_text(f'#!/bin/sh\nenv >> {shown}\necho "$@" >> {shown}\nexec {real} "$@"\n')
        fake.chmod(0o755)
    path = f"{made.folder}/fakes:{PROGRAMS[-1]}:{os.environ['PATH']}"
    assert made.run("backup", PATH=path).returncode == 0
    assert made.run("restore", PATH=path).returncode == 0
    assert made.password.read_text() not in shown.read_text()
    file = made.folder / "pgpass"
    assert file.read_text() == "*:*:*:*:a\\:pass\\\\word\n"
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("script", "settings", "message"),
    [
        ("backup", {"KEEP": "0"}, "KEEP must be a number of at least 1: 0"),
        ("backup", {"POSTGRESQL_PASSWORD_FILE": "/none"}, "names no file to read: /none"),
        ("backup", {"BACKUPS": "/none"}, "BACKUPS is no folder to write into: /none"),
        ("restore", {}, "there is no backup in"),
    ],
)
def test_a_missing_part_is_named(
    made: Installation, script: str, settings: dict[str, str], message: str
) -> None:
    done = made.run(script, **settings)
    assert done.returncode == 1
    assert message in done.stderr


def test_the_scripts_are_in_the_image() -> None:
    text = (SCRIPTS / "Dockerfile").read_text()
    for script in ("client", "backup", "restore"):
        assert f"images/postgresql/{script}" in text
    assert shutil.which("flock"), "a part of the base image"
