"""With certificates, MLflow and PostgreSQL are called over TLS only, also after a renewal.

The installation is one of its own, because TLS is not turned off again.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from declared_models import FIRST as MODEL
from installation import FOLDER, RELEASE, Installation
from kube import Json, get, helm, items, kubectl, wait_until
from rollouts import has_succeeded
from single_requests import infer
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError
from tls_secrets import NAMES, put

from watchkeeper.core.prediction_id import request_of
from watchkeeper.ledger.lookup import find_prediction

NOTICED_SECONDS = 240.0  # kubelet replaces the files of a Secret within two minutes
RUN_SECONDS = 400.0


class WithTls(Installation):
    """An installation of one model, with certificates."""

    def values(self) -> Json:
        return {**super().values(), "tls": {"secrets": NAMES}}

    def install(self, **values: Any) -> None:
        if not get("secret", NAMES["mlflow"], f"--namespace={self.namespace}"):
            put(self)
        super().install(**values)


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    made = WithTls(FOLDER / "tls", models=(MODEL,))
    made.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        made.ensure()
        yield made
    finally:
        made.write_diagnostics("end")
        made.close()
        made.remove()


def call_mlflow(installation: Installation, scheme: str) -> str:
    """Call MLflow from the pod of the command line; return its answer, or the error."""
    program = (
        "import ssl, sys, urllib.request\n"
        "context = ssl.create_default_context(cafile='/run/authorities/mlflow.crt')\n"
        "try:\n"
        "    answer = urllib.request.urlopen(sys.argv[1], timeout=10, context=context)\n"
        "    print(answer.read().decode())\n"
        "except OSError as error:\n"
        "    print('refused:', error)\n"
    )
    url = f"{scheme}://{RELEASE}-mlflow.{installation.namespace}.svc:5000/health"
    pod = ("exec", f"deploy/{RELEASE}-cli", f"--namespace={installation.namespace}", "--")
    return kubectl(*pod, "python", "-c", program, url)


def sessions(installation: Installation) -> dict[str, set[bool]]:
    """Return, for each user of PostgreSQL with a session, whether the sessions are encrypted."""
    query = text(
        "SELECT usename, ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) "
        "WHERE client_addr IS NOT NULL"
    )
    found: dict[str, set[bool]] = {}
    with installation.ledger.read() as connection:
        for user, encrypted in connection.execute(query):
            found.setdefault(user, set()).add(encrypted)
    return found


def restarts(installation: Installation, component: str) -> int:
    selector = f"--selector=app.kubernetes.io/component={component}"
    (pod,) = items("pods", selector, f"--namespace={installation.namespace}")
    (status,) = pod["status"]["containerStatuses"]
    return int(status["restartCount"])


def check_recorded(installation: Installation) -> None:
    """Send a request, and wait for its record in the ledger."""
    prediction = request_of(infer(installation, "http", {}))
    wait_until("its record", lambda: find_prediction(installation.ledger, prediction))


def test_the_first_version_is_trained_registered_and_served(installation: Installation) -> None:
    assert installation.first_versions[MODEL].promoted == [1]
    check_recorded(installation)
    assert installation.model(MODEL)["production"] == 1
    output = helm("test", RELEASE, f"--namespace={installation.namespace}", "--logs")
    assert f"{MODEL} version 1 answers over gRPC through the gateway" in output


def test_every_session_of_the_database_is_encrypted(installation: Installation) -> None:
    found = sessions(installation)
    assert {f"ledger-writer-{MODEL}", "ledger-reader", "mlflow"} <= found.keys()
    assert set().union(*found.values()) == {True}


def test_connections_without_tls_are_refused(installation: Installation) -> None:
    url = installation.ledger.engine.url.update_query_dict({"sslmode": "disable"})
    engine = create_engine(url)
    with pytest.raises(OperationalError, match="no encryption"):
        engine.connect()
    engine.dispose()
    assert call_mlflow(installation, "https").strip() == "OK"
    assert call_mlflow(installation, "http").startswith("refused:")


def test_a_backup_is_made(installation: Installation) -> None:
    job, namespace = "backup-over-tls", f"--namespace={installation.namespace}"
    kubectl("create", "job", job, f"--from=cronjob/{RELEASE}-backup", namespace)
    wait = ("--for=condition=Complete", "--timeout=110s")
    kubectl("wait", f"job/{job}", *wait, namespace, seconds=120.0)


def test_certificates_of_a_new_authority_are_used_without_a_restart_by_hand(
    installation: Installation,
) -> None:
    before = {each: restarts(installation, each) for each in ("mlflow", "postgresql", "rollout")}
    servers = installation.restarts(MODEL, 1)
    put(installation)
    wait_until(
        "MLflow has restarted",
        lambda: restarts(installation, "mlflow") > before["mlflow"],
        NOTICED_SECONDS,
    )
    wait_until(
        "clients know the certificate of MLflow",
        lambda: call_mlflow(installation, "https").strip() == "OK",
        NOTICED_SECONDS,
    )
    run = wait_until(
        "the command line knows the certificate of the database",
        lambda: installation.watchkeeper("train", MODEL)["run"],
        NOTICED_SECONDS,
    )
    wait_until("the run has ended", lambda: has_succeeded(installation, run), RUN_SECONDS)
    for component in ("postgresql", "rollout"):
        assert restarts(installation, component) == before[component]
    assert installation.restarts(MODEL, 1) == servers


def test_a_new_pod_fetches_its_version_and_ships_its_records(installation: Installation) -> None:
    namespace = f"--namespace={installation.namespace}"
    old = {pod["metadata"]["name"] for pod in installation.pods(MODEL, 1)}
    kubectl("delete", "pod", *old, namespace, "--wait=false")

    def replaced() -> bool:
        pods = {pod["metadata"]["name"]: pod for pod in installation.pods(MODEL, 1)}
        return not old & pods.keys() and all(
            condition["status"] == "True"
            for pod in pods.values()
            for condition in pod["status"]["conditions"]
            if condition["type"] == "Ready"
        )

    wait_until("all pods of the version are new and ready", replaced, 300.0)
    check_recorded(installation)
