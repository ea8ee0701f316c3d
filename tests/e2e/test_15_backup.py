"""Backup and restore of the embedded PostgreSQL, by the commands of docs/how-to/backup.md.

Somebody drops all tables of the ledger. Requests are answered all the time, and after the restore
the ledger has all rows of the backup and the records of the meantime.
"""

import re
import subprocess

import pytest
from declared_models import FIRST as MODEL
from declared_models import MODELS
from installation import RELEASE, Installation
from kube import ENVIRONMENT, ROOT, get, kubectl, read_secret, wait_until
from rollouts import serves_alone
from single_requests import infer
from sqlalchemy import MetaData, inspect, select, text

from watchkeeper.core.prediction_id import request_of
from watchkeeper.ledger.lookup import find_prediction

PAGE = ROOT / "docs/how-to/backup.md"
LIMIT_SECONDS = 120.0
# The sidecars write these rows again all the time.
CHANGING = {"spools"}
SQL = "sql() {"  # the block with a function for statements
Rows = dict[str, set[str]]


class Page:
    """The commands of the page, for the namespaces of an installation."""

    def __init__(self, installation: Installation) -> None:
        self._folder = installation.folder
        commands = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
        namespace = f"-n {installation.namespace}"
        self._blocks = [re.sub(r"-n watchkeeper(?=\s)", namespace, block) for block in commands]

    def run(self, start: str, *, given: str = "", backup: str = "") -> str:
        """Run the block with this start, and return what it prints.

        Args:
            start: the start of the block.
            given: commands that follow the block.
            backup: the backup that it restores, in place of the example.
        """
        (block,) = (each for each in self._blocks if each.startswith(start))
        block = re.sub(r"\bBACKUP=\d\S+", f"BACKUP={backup}", block)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block + given],
            cwd=self._folder,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def page(installation: Installation) -> Page:
    return Page(installation)


@pytest.fixture(scope="module")
def before(installation: Installation, page: Page) -> Rows:
    """A backup of the present rows, and one with fewer rows before it."""
    page.run("JOB=backup-")
    prediction = infer(installation, "http", {})
    wait_until("its record", lambda: recorded(installation, prediction))
    found = rows(installation)
    assert found["predictions"]
    assert found["events"]
    assert "is complete" in page.run("JOB=backup-")
    return found


def test_a_ledger_without_tables_is_restored_with_all_rows(
    installation: Installation, page: Page, before: Rows
) -> None:
    restarts = installation.restarts(MODEL, installation.model(MODEL)["production"])
    drop_tables(installation)
    meanwhile = infer(installation, "http", {})
    assert "is restored" in page.run("JOB=restore-$(date +%s)\n")
    after = rows(installation)
    assert {table for table in before.keys() - CHANGING if before[table] - after[table]} == set()
    wait_until("a record of the meantime", lambda: recorded(installation, meanwhile))
    for model in MODELS:
        production = installation.model(model)["production"]
        wait_until(
            f"{model} serves as before",
            lambda model=model, production=production: serves_alone(
                installation, model, production
            ),
        )
    assert restarts == installation.restarts(MODEL, installation.model(MODEL)["production"])


@pytest.mark.usefixtures("before")
def test_backups_are_copied_out_and_in_and_one_of_them_is_restored(
    installation: Installation, page: Page
) -> None:
    page.run("kubectl create job backup-files")
    listed = subprocess.run(
        ["tar", "--list", "--file=backups.tar"],
        cwd=installation.folder,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    names = sorted({name.partition("/")[0] for name in listed})
    assert {f"{names[-2]}/{database}.dump" for database in ("ledger", "mlflow")} <= set(listed)
    in_pod = ("exec", "job/backup-files", f"--namespace={installation.namespace}", "--", "sh", "-c")
    kubectl(*in_pod, "rm -rf /backups/*Z")
    page.run(f"kubectl exec -i -n {installation.namespace} job/")
    log = page.run("JOB=restore-$(date +%s) BACKUP=", backup=names[-2])
    assert f"backup {names[-2]} is restored" in log


@pytest.mark.usefixtures("before")
def test_the_replaced_databases_are_listed_and_deleted(page: Page) -> None:
    names = [line.partition("|")[0] for line in page.run(SQL).splitlines()]
    assert {name.partition("_replaced_")[0] for name in names} == {"ledger", "mlflow"}
    statements = "".join(f"echo 'DROP DATABASE {name}' | sql\n" for name in names)
    page.run(SQL, given=statements)
    assert page.run(SQL) == ""


def test_secrets_are_copied_and_restored(installation: Installation, page: Page) -> None:
    page.run("kubectl get secrets watchkeeper")
    namespace = f"--namespace={installation.namespace}"
    found = {name: get("secret", name, namespace)["data"] for name in secrets_of(installation)}
    assert len(found) == 2
    kubectl("delete", "secret", *found, namespace)
    page.run("kubectl apply -f secrets.yaml")
    assert {name: get("secret", name, namespace)["data"] for name in found} == found
    installation.install()
    assert read_secret(installation.namespace, RELEASE, "signing-key")
    assert infer(installation, "http", {})


def secrets_of(installation: Installation) -> list[str]:
    names = (RELEASE, f"{RELEASE}-gateway")
    return [each for each in names if get("secret", each, f"--namespace={installation.namespace}")]


def rows(installation: Installation) -> Rows:
    """Return the rows of each table of the ledger."""
    found: Rows = {}
    tables = MetaData()
    with installation.ledger.engine.connect() as connection:
        tables.reflect(connection)
        for table in tables.sorted_tables:
            found[table.name] = {repr(row) for row in connection.execute(select(table))}
    return found


def drop_tables(installation: Installation) -> None:
    with installation.ledger.write() as connection:
        for table in inspect(connection).get_table_names():
            connection.execute(text(f'DROP TABLE "{table}" CASCADE'))
    with installation.ledger.read() as connection:
        assert inspect(connection).get_table_names() == []


def recorded(installation: Installation, prediction: str) -> bool:
    return find_prediction(installation.ledger, request_of(prediction)) is not None
