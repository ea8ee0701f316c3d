"""With certificates, MLflow, PostgreSQL and the servers of versions are called over TLS only.

The installation is one of its own, because TLS is not turned off again. Its first version serves
when TLS is turned on.
"""

import secrets
from collections.abc import Iterator

import pytest
from declared_models import FIRST as MODEL
from installation import FOLDER, RELEASE, Installation, installed
from kube import Json, apply, get, helm, items, kubectl, read_secret, secret, wait_until
from load import Load
from past_the_gateway import past_the_gateway
from rollouts import check_promotion, has_succeeded, newest_candidate
from sessions import sessions
from single_requests import check_recorded, is_answered
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError
from tls_secrets import NAMES, put
from trustme import CA

NOTICED_SECONDS = 240.0  # kubelet replaces the files of a Secret within two minutes
RUN_SECONDS = 400.0


POLICY = "backendtlspolicies.gateway.networking.k8s.io"


class WithTls(Installation):
    """An installation of one model, with certificates after :meth:`turn_on`."""

    has_tls = False
    authority: CA

    def values(self) -> Json:
        tls = {"tls": {"secrets": NAMES}} if self.has_tls else {}
        return {**super().values(), **tls}

    def turn_on(self) -> None:
        """Create the certificates, and upgrade the release."""
        self.authority = CA()
        put(self, self.authority)
        self.has_tls = True
        self.install()


@pytest.fixture(scope="module")
def installation() -> Iterator[WithTls]:
    with installed(WithTls(FOLDER / "tls", models=(MODEL,))) as made:
        yield made


@pytest.fixture(scope="module")
def load(installation: WithTls) -> Iterator[Load]:
    """A steady load while TLS is turned on and certificates are renewed."""
    with Load(installation, MODEL, "tls", rate=40.0) as made:
        yield made


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
    return installation.in_cli("python", "-c", program, url)


def restarts(installation: Installation, component: str) -> int:
    selector = f"--selector=app.kubernetes.io/component={component}"
    (pod,) = items("pods", selector, f"--namespace={installation.namespace}")
    (status,) = pod["status"]["containerStatuses"]
    return int(status["restartCount"])


def ports(installation: Installation) -> dict[str, set[int]]:
    """Return the ports of the servers that the gateway calls, by Service."""
    route = get("httproute", MODEL, f"--namespace={installation.namespace}")
    found: dict[str, set[int]] = {}
    for rule in route["spec"]["rules"]:
        for backend in rule["backendRefs"]:
            found.setdefault(backend["name"], set()).add(backend["port"])
    return found


def served_certificate(installation: Installation, port: int) -> str:
    """Return the certificate that a server of production shows on a port, as PEM."""
    version = installation.model(MODEL)["production"]
    address = installation.pods(MODEL, version)[0]["status"]["podIP"]
    program = (
        "import ssl, sys; "
        "print(ssl.get_server_certificate((sys.argv[1], int(sys.argv[2])), timeout=10))"
    )
    return installation.in_cli("python", "-c", program, address, str(port))


def connect(installation: Installation, address: str, port: int) -> str:
    """Connect from the pod of the command line; return "connected", or the error."""
    program = (
        "import socket, sys\n"
        "try:\n"
        "    socket.create_connection((sys.argv[1], int(sys.argv[2])), 10).close()\n"
        "    print('connected')\n"
        "except OSError as error:\n"
        "    print(type(error).__name__)\n"
    )
    return installation.in_cli("python", "-c", program, address, str(port)).strip()


def test_tls_is_turned_on_while_a_version_serves(installation: WithTls, load: Load) -> None:
    assert installation.first_versions[MODEL].promoted == [1]
    installation.turn_on()
    wait_until("version 1 is served", lambda: installation.model(MODEL)["production"] == 1)
    check_recorded(installation)
    assert ports(installation) == {f"{MODEL}-v1-predictor": {80, 9000}}
    load.check()


def test_the_next_version_gets_its_share_with_tls_beside_the_one_without(
    installation: WithTls, load: Load
) -> None:
    run = installation.watchkeeper("train", MODEL)["run"]
    wait_until("the run has ended", lambda: has_succeeded(installation, run), RUN_SECONDS)
    assert newest_candidate(installation, MODEL) == 2
    check_promotion(installation, MODEL, 2)
    assert ports(installation) == {f"{MODEL}-v2-predictor": {8443, 9443}}
    for protocol in ("http", "grpc"):
        assert is_answered(installation, protocol, {}, MODEL)
    load.check()
    output = helm("test", RELEASE, f"--namespace={installation.namespace}", "--logs")
    assert f"{MODEL} version 2 answers over gRPC through the gateway" in output


def test_servers_answer_nobody_without_tls(installation: WithTls) -> None:
    for pod in installation.pods(MODEL, 2):
        status, answer = past_the_gateway(installation, pod, {})
        assert (status, "this server answers over TLS only" in answer) == (403, True)
        assert connect(installation, pod["status"]["podIP"], 9000) == "ConnectionRefusedError"
        assert connect(installation, pod["status"]["podIP"], 9443) == "connected"


def test_the_policy_of_the_gateway_comes_back_when_somebody_deletes_it(
    installation: WithTls,
) -> None:
    namespace = f"--namespace={installation.namespace}"
    wanted = get(POLICY, MODEL, namespace)["spec"]
    kubectl("delete", POLICY, MODEL, namespace)
    wait_until("it is back", lambda: get(POLICY, MODEL, namespace))
    assert get(POLICY, MODEL, namespace)["spec"] == wanted
    for protocol in ("http", "grpc"):
        wait_until("answered", lambda p=protocol: is_answered(installation, p, {}, MODEL))


def test_servers_use_a_renewed_certificate_without_a_restart_and_without_a_failed_request(
    installation: WithTls, load: Load
) -> None:
    before = installation.restarts(MODEL, 2)
    failed = load.failed()
    put(installation, installation.authority, ["servers"])
    new = read_secret(installation.namespace, NAMES["servers"], "tls.crt").strip()
    for port in (8443, 9443):
        wait_until(
            f"port {port} shows the new certificate",
            lambda p=port: served_certificate(installation, p).strip() == new,
            NOTICED_SECONDS,
        )
    assert installation.restarts(MODEL, 2) == before
    assert load.failed() == failed
    load.stop()


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
    servers = installation.restarts(MODEL, 2)
    put(installation, CA(), ["mlflow", "database"])
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
    assert installation.restarts(MODEL, 2) == servers


def test_a_new_pod_fetches_its_version_and_ships_its_records(installation: WithTls) -> None:
    namespace = f"--namespace={installation.namespace}"
    version = installation.model(MODEL)["production"]
    old = {pod["metadata"]["name"] for pod in installation.pods(MODEL, version)}
    kubectl("delete", "pod", *old, namespace, "--wait=false")

    def replaced() -> bool:
        pods = {pod["metadata"]["name"]: pod for pod in installation.pods(MODEL, version)}
        return not old & pods.keys() and all(
            condition["status"] == "True"
            for pod in pods.values()
            for condition in pod["status"]["conditions"]
            if condition["type"] == "Ready"
        )

    wait_until("all pods of the version are new and ready", replaced, 300.0)
    check_recorded(installation)


def test_helm_test_asks_the_servers_with_tls_if_clients_authenticate(installation: WithTls) -> None:
    version = installation.model(MODEL)["production"]
    apply(secret(installation.namespace, "clients", {"press-shop": secrets.token_hex(16)}))
    api_key = {"secretNames": ["clients"]}
    installation.install(auth={"clients": {"mode": "apiKey", "apiKey": api_key}})
    output = helm("test", RELEASE, f"--namespace={installation.namespace}", "--logs")
    for protocol, port in (("HTTP", 8443), ("gRPC", 9443)):
        server = f"{MODEL}-v{version}-predictor:{port}"
        expected = f"{MODEL} version {version} answers over {protocol} past the gateway, {server}"
        assert expected in output
