"""The users of the components: what each of them may read and write."""

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from databases import STRANGER, Server
from samples import NOW, failed_attempt, label, prediction, remove_all, spool
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import DBAPIError

from watchkeeper.core.drift_report import DriftReport, ReportWindow
from watchkeeper.core.events import Event, LabelContradicted, Watched
from watchkeeper.core.exit_codes import EXIT_FATAL
from watchkeeper.core.policies import RetentionPolicy
from watchkeeper.core.settings import SettingsError
from watchkeeper.ledger import Ledger, migrate, tables
from watchkeeper.ledger.deletions import deletions, process_deletions, request_deletion
from watchkeeper.ledger.engines import LOCK_SECONDS
from watchkeeper.ledger.episodes import Attempt, Episode, attempts, save_attempt, save_episode
from watchkeeper.ledger.errors import LedgerError
from watchkeeper.ledger.events import emit, history
from watchkeeper.ledger.gaps import StoredGap
from watchkeeper.ledger.mlflow_owner import hand_over
from watchkeeper.ledger.observations import observations
from watchkeeper.ledger.records import store_records
from watchkeeper.ledger.reports import save_report
from watchkeeper.ledger.retention import emit_removal_events
from watchkeeper.ledger.spools import abandon_spool, open_spools
from watchkeeper.ledger.users import READER, WRITER, grant_rights

SECRET = "a:%'\\password"
OTHER = msgspec.structs.replace(prediction(900), model="other")


class Users(msgspec.Struct):
    """The URLs of an owner and of the users whom it grants rights."""

    owner: str
    reader: str
    writers: dict[str, str]

    def grant(self, shared: str = "") -> None:
        grant_rights(self.owner, reader=self.reader, writer=shared, writers=self.writers)


def url_of(owner: str, name: str, password: str = SECRET) -> str:
    return make_url(owner).set(username=name, password=password).render_as_string(False)


@pytest.fixture
def users(server: Server) -> Users:
    """Users of a migrated database; those of other tests have other names."""
    owner, suffix = server.create(), uuid.uuid4().hex[:6]
    migrate(owner)
    writers = {model: url_of(owner, f"writer-{model}-{suffix}") for model in ("m", "other")}
    return Users(owner, url_of(owner, f"reader-{suffix}"), writers)


@pytest.fixture
def reader(users: Users) -> Iterator[Ledger]:
    """The ledger as rollout, training and the command line see it."""
    users.grant()
    ledger = Ledger(users.reader)
    yield ledger
    ledger.close()


@pytest.fixture
def writer(users: Users) -> Iterator[Ledger]:
    """The ledger as the sidecars of the model "m" see it."""
    users.grant()
    ledger = Ledger(users.writers["m"])
    yield ledger
    ledger.close()


def test_each_table_has_a_model_and_rights() -> None:
    assert set(WRITER) == set(READER) == {*tables.metadata.tables, "alembic_version"}
    assert all("model" in table.c for table in tables.metadata.tables.values())


def test_a_sidecar_may_do_all_its_work(writer: Ledger, reader: Ledger) -> None:
    batch = [prediction(n, float(n), subject="ann" if n < 5 else "") for n in range(20)]
    lines = [attempt for one in batch for attempt in (failed_attempt(one), one)]
    gap = StoredGap("s", 1, 1, "m", 1, "lost", "", 7, 1.0, 2.0)
    store_records(writer, lines, [label(one) for one in batch], spool(30.0), [gap])
    store_records(writer, lines, [label(batch[9], 0.0)], spool(2000.0), [gap])
    assert [event.kind for event in history(reader, "m", kind=LabelContradicted)]
    request_deletion(reader, "m", "ann", 35.0)
    while process_deletions(writer, "m", NOW):
        pass
    assert [each.subject for each in deletions(reader, "m")] == [""]
    report = DriftReport(verdict="none", reason="", window=ReportWindow(1.0, 2.0, 5), features=())
    save_report(writer, "m", 1, report)
    episode = Episode("m-v1-e1", "m", 1, "training", 1.0, 2.0, 3.0, 1, "drift of x")
    save_episode(writer, episode)
    save_episode(writer, msgspec.structs.replace(episode, state="promoted"))
    save_attempt(writer, Attempt("m-a1", "m-v1-e1", "m", "drift", 5.0))
    remove_all(writer, 100.0, NOW)
    emit_removal_events(writer, "m", RetentionPolicy(), NOW + 2 * 86400.0)
    (open_spool,) = open_spools(writer, "m")
    assert abandon_spool(writer, open_spool, NOW, 1.0)
    assert observations(reader, "m", 1, since=0.0) == []


def test_the_reader_reads_all_models_and_writes_no_record(
    reader: Ledger, writer: Ledger, users: Users
) -> None:
    users.grant()  # a repetition changes nothing
    store_records(writer, [prediction(1)], [label(prediction(1))], spool(30.0))
    other = Ledger(users.writers["other"])
    store_records(other, [OTHER], [], spool(30.0, "t", model="other"))
    other.close()
    assert [len(observations(reader, model, 1, since=0.0)) for model in ("m", "other")] == [1, 1]
    assert emit(reader, Event("m/v1/watched/1", "m", 1, 1.0, "why", Watched(verdict="pass")))
    save_attempt(reader, Attempt("m-a2", None, "m", "by hand", 5.0))
    assert [each.run for each in attempts(reader, "m")] == ["m-a2"]
    for statement in (
        "DELETE FROM predictions",
        "UPDATE labels SET value = 1",
        "DELETE FROM events",
        "UPDATE events SET reason = 'x'",
        "INSERT INTO spools SELECT * FROM spools",
        "DROP TABLE labels",
        "DELETE FROM alembic_version",
    ):
        with pytest.raises(DBAPIError), reader.write() as connection:
            connection.exec_driver_sql(statement)


def test_a_writer_does_not_change_decisions_or_tables(writer: Ledger) -> None:
    for statement in (
        "UPDATE events SET reason = 'x'",
        "DELETE FROM attempts",
        "DELETE FROM deletions",
        "DROP TABLE labels",
        "UPDATE alembic_version SET version_num = '0001'",
    ):
        with pytest.raises(DBAPIError), writer.write() as connection:
            connection.exec_driver_sql(statement)


def test_on_postgresql_a_writer_has_the_rows_of_its_own_model_only(
    postgresql: Server,
) -> None:
    owner, suffix = postgresql.create(), uuid.uuid4().hex[:6]
    migrate(owner)
    found = Users(owner, "", {m: url_of(owner, f"w{suffix}-{m}") for m in ("m", "other")})
    found.grant()
    own = found.writers["m"]
    mine, other, all_rows = (Ledger(url) for url in (own, found.writers["other"], owner))
    labels = [msgspec.structs.replace(label(OTHER), model="other")]
    store_records(other, [OTHER], labels, spool(30.0, "t", model="other"))
    store_records(mine, [prediction(1)], [], spool(30.0))
    with pytest.raises(LedgerError, match="row-level security"):
        store_records(mine, [OTHER], [], spool(30.0))
    with pytest.raises(LedgerError, match="row-level security"):
        emit(mine, Event("x", "other", 1, 1.0, "why", Watched(verdict="pass")))
    with mine.write() as connection:
        for table in ("predictions", "labels", "spools"):
            models = connection.execute(text(f"SELECT DISTINCT model FROM {table}")).scalars()  # noqa: S608
            assert set(models) <= {"m"}, table
        assert connection.execute(text("DELETE FROM predictions")).rowcount == 1
        assert connection.execute(text("UPDATE labels SET value = 3")).rowcount == 0
    assert len(observations(all_rows, "other", 1, since=0.0)) == 1
    # A shared writer is not limited: a model that was removed still ships its last records.
    found.grant(shared=found.writers.pop("m"))
    assert len(observations(mine, "other", 1, since=0.0)) == 1
    found.writers["m"] = own
    found.grant()
    assert observations(mine, "other", 1, since=0.0) == []
    for each in (mine, other, all_rows):
        each.close()


def test_a_changed_password_reaches_the_database_and_no_log_of_statements(
    postgresql: Server,
) -> None:
    owner = postgresql.create()
    migrate(owner)
    postgresql.execute(f"DROP ROLE IF EXISTS {STRANGER}")  # that of another test
    postgresql.execute("ALTER SYSTEM SET log_statement = 'all'")
    postgresql.execute("SELECT pg_reload_conf()")
    for password in ("first-%-secret", "second-:-secret"):
        reader = url_of(owner, STRANGER, password)
        grant_rights(owner, reader=reader)
        ledger = Ledger(reader)
        assert history(ledger, "m") == []
        ledger.close()
    assert "-secret" not in (postgresql.folder / "log").read_text()
    postgresql.execute("ALTER SYSTEM RESET log_statement", "SELECT pg_reload_conf()")
    forget(owner, STRANGER)


def forget(owner: str, user: str) -> None:
    """Delete a user and its rights in a database."""
    engine = create_engine(owner)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP OWNED BY {user}")
        connection.exec_driver_sql(f"DROP ROLE {user}")
    engine.dispose()


def test_a_user_of_somebody_else_keeps_its_password(postgresql: Server) -> None:
    owner, other = postgresql.create(), postgresql.create()
    for url in (owner, other):
        migrate(url)
    postgresql.execute(f"DROP ROLE IF EXISTS {STRANGER}")  # that of another test
    first, second = url_of(owner, STRANGER, "first"), url_of(other, STRANGER, "second")
    try:
        grant_rights(owner, reader=first)
        with pytest.raises(SettingsError, match="this database has not created it"):
            grant_rights(other, reader=second)
        grant_rights(owner, reader=first)
    finally:
        forget(owner, STRANGER)


def test_two_writers_with_one_user_are_refused(server: Server) -> None:
    owner = server.create()
    migrate(owner)
    same = url_of(owner, f"w{uuid.uuid4().hex[:6]}")
    with pytest.raises(SettingsError, match="the writer of m and the writer of other are the same"):
        grant_rights(owner, writers={"m": same, "other": same})
    with pytest.raises(SettingsError, match="the shared writer and the reader are the same"):
        grant_rights(owner, reader=same, writer=same)


def test_rights_are_granted_when_a_long_backup_has_ended(postgresql: Server) -> None:
    owner = postgresql.create()
    migrate(owner)
    backup = create_engine(owner)
    with backup.connect() as holder, ThreadPoolExecutor(1) as pool:
        holder.exec_driver_sql("LOCK TABLE labels IN ACCESS SHARE MODE")
        user = f"w{uuid.uuid4().hex[:6]}"
        granted = pool.submit(grant_rights, owner, writers={"m": url_of(owner, user)})
        time.sleep(LOCK_SECONDS + 2.0)
        assert not granted.done()
        holder.rollback()
        granted.result(60)
    backup.dispose()


def test_what_is_no_longer_a_right_is_taken_back(postgresql: Server) -> None:
    owner = postgresql.create()
    migrate(owner)
    url = url_of(owner, f"u{uuid.uuid4().hex[:6]}")
    grant_rights(owner, writer=url)
    grant_rights(owner, reader=url)
    ledger = Ledger(url)
    with pytest.raises(DBAPIError), ledger.write() as connection:
        connection.exec_driver_sql("DELETE FROM predictions")
    ledger.close()


def test_an_owner_that_may_not_create_users_says_what_an_administrator_has_to_do(
    server: Server,
) -> None:
    administrator, suffix = server.create(), uuid.uuid4().hex[:6]
    database, owner = make_url(administrator).database, f"owner{suffix}"
    if server.kind == "postgresql":
        server.execute(f"CREATE ROLE {owner} LOGIN", f"ALTER DATABASE {database} OWNER TO {owner}")
    else:
        server.execute(f"CREATE USER {owner}", f"GRANT ALL ON {database}.* TO {owner}")
    url = url_of(administrator, owner, "")
    migrate(url)
    with pytest.raises(SettingsError, match=r"user reader.*administrator.*CREATE") as raised:
        grant_rights(url, reader=url_of(administrator, f"reader{suffix}", "a-secret"))
    assert "a-secret" not in str(raised.value)


def test_the_command_grants_rights_to_the_users_of_a_mounted_secret(
    server: Server, tmp_path: Path
) -> None:
    owner, suffix = server.create(), uuid.uuid4().hex[:6]
    writer = url_of(owner, f"w{suffix}")
    folder = tmp_path / "writers"
    (folder / "..data").mkdir(parents=True)
    (folder / "m").write_text(f"{writer}\n")
    environment = {
        **os.environ,
        "WATCHKEEPER_LEDGER_URL": owner,
        "WATCHKEEPER_LEDGER_READER_URL": url_of(owner, f"r{suffix}"),
        "WATCHKEEPER_LEDGER_WRITER_URLS": str(folder),
    }
    command = (sys.executable, "-m", "watchkeeper.ledger")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ledger = Ledger(writer)
    store_records(ledger, [prediction(1)], [], spool(30.0))
    ledger.close()
    (folder / "m").write_text("postgresql+psycopg://host/database")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == EXIT_FATAL
    assert "the URL of the ledger for the writer of m names no user" in done.stderr


def test_the_owner_itself_may_be_reader_and_writer(server: Server) -> None:
    owner = server.create()
    migrate(owner)
    grant_rights(owner, reader=owner, writers={"m": owner})
    ledger = Ledger(owner)
    store_records(ledger, [prediction(1)], [], spool(30.0))
    assert len(observations(ledger, "m", 1, since=0.0)) == 1
    ledger.close()


def test_mlflow_becomes_the_owner_of_tables_that_the_administrator_has_created(
    postgresql: Server,
) -> None:
    administrator, name = postgresql.create(), f"mlflow{uuid.uuid4().hex[:6]}"
    mlflow = url_of(administrator, name)
    engine = create_engine(administrator)
    with engine.begin() as connection:
        connection.exec_driver_sql('CREATE TABLE "Runs" (id serial PRIMARY KEY, name text)')
    for _ in range(2):
        hand_over(administrator, mlflow)
    own = create_engine(mlflow)
    with own.begin() as connection:
        connection.exec_driver_sql('ALTER TABLE "Runs" ADD COLUMN more text')
        connection.exec_driver_sql("INSERT INTO \"Runs\" (name) VALUES ('first')")
        connection.exec_driver_sql("CREATE TABLE later (id integer)")
    for each in (engine, own):
        each.dispose()
