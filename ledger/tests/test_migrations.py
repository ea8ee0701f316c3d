"""The command that migrates the ledger, as the hook of an installation runs it."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from databases import STRANGER, Server
from sqlalchemy import inspect, make_url
from waiting import wait_for

from watchkeeper.core.exit_codes import EXIT_RETRY
from watchkeeper.ledger import Ledger, tables

COMMAND = (sys.executable, "-m", "watchkeeper.ledger")


def migrate(url: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        COMMAND,
        env={**os.environ, "WATCHKEEPER_LEDGER_URL": url, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def has_tables(url: str) -> bool:
    ledger = Ledger(url)
    found = {*inspect(ledger.engine).get_table_names()}
    ledger.close()
    return found == {*tables.metadata.tables, "alembic_version"}


def test_concurrent_migrations_succeed(database_url: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(migrate, [database_url] * 6))
    assert [each.returncode for each in done] == [0] * 6, [each.stderr for each in done]
    assert has_tables(database_url)
    assert migrate(database_url).returncode == 0


def test_the_command_waits_for_a_starting_database(server: Server) -> None:
    url = server.create()
    server.kill()
    environment = {**os.environ, "WATCHKEEPER_LEDGER_URL": url}
    waiting = subprocess.Popen(COMMAND, env=environment, stderr=subprocess.PIPE, text=True)
    assert waiting.stderr is not None
    assert "waits: " in waiting.stderr.readline()
    assert waiting.poll() is None
    server.start()
    wait_for(lambda: waiting.poll() is not None)
    assert waiting.returncode == 0, waiting.stderr.read()
    waiting.stderr.close()
    assert has_tables(url)


def test_the_command_does_not_wait_after_a_refused_password(server: Server) -> None:
    url = make_url(server.create())
    identified = {"postgresql": "ROLE {} LOGIN PASSWORD", "mariadb": "USER {} IDENTIFIED BY"}
    server.execute(f"CREATE {identified[server.kind].format(STRANGER)} 'right'")
    wrong = url.set(username=STRANGER, password="wrong").render_as_string(hide_password=False)
    done = migrate(wrong, WATCHKEEPER_WAIT_SECONDS="3600")
    assert done.returncode == EXIT_RETRY
    assert STRANGER in done.stderr
    assert "wrong" not in done.stderr


def test_the_error_about_a_silent_database_contains_no_password() -> None:
    url = "postgresql+psycopg://me:secret@127.0.0.1:1/ledger"
    done = migrate(url, WATCHKEEPER_WAIT_SECONDS="0.1")
    assert done.returncode == 1
    assert "refused" in done.stderr
    assert "secret" not in done.stderr


@pytest.mark.parametrize("url", ["", "oracle://me:secret@host/ledger"])
def test_an_invalid_url_is_a_fatal_error(url: str) -> None:
    done = migrate(url)
    assert done.returncode == 2
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr
