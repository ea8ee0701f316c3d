"""A Kubernetes API server for tests: kube-apiserver and etcd, without controllers and nodes.

It has the custom resources of KServe, the Gateway API and Envoy Gateway. Use it as a pytest plugin:
``pytest_plugins = ["api_server"]``. It needs the programs and definitions that ``make cluster``
stores in its cache. If one is missing, tests are skipped, or fail with
WATCHKEEPER_TEST_API_SERVER=required. Tests themselves write what controllers would write.
"""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml
from free_ports import HOST, free_ports
from kept_builds import MissingError, cached
from kubernetes.client import ApiClient, ApiException, Configuration
from kubernetes.config import load_kube_config
from kubernetes.dynamic import DynamicClient, Resource

from watchkeeper.platforms.kube.api import Json, Kind

START_SECONDS = 120.0
REQUIRED = os.environ.get("WATCHKEEPER_TEST_API_SERVER") == "required"
USERS = ("admin", "rollout", "sidecar", "person")
_GATEWAY_API = "sigs.k8s.io_gateway-api/config/crd/standard/gateway.networking.k8s.io_"
_ENVOY_GATEWAY = (
    "github.com_envoyproxy_gateway/charts/gateway-helm/charts/crds/crds/generated/"
    "gateway.envoyproxy.io_"
)
DEFINITIONS = {
    "github.com_kserve_kserve/install/v0.20.0/kserve-crds.yaml": ("inferenceservices",),
    **{
        f"{_GATEWAY_API}{each}.yaml": (each,)
        for each in ("backendtlspolicies", "gateways", "httproutes")
    },
    **{
        f"{_ENVOY_GATEWAY}{each}.yaml": (each,)
        for each in ("backendtrafficpolicies", "securitypolicies")
    },
}


NAMESPACE = Kind("", "v1", "Namespace", "namespaces")
DEFINITION = Kind(
    "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions"
)
ROLE = Kind("rbac.authorization.k8s.io", "v1", "Role", "roles")
BINDING = Kind("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings")
POLICY = Kind(
    "admissionregistration.k8s.io",
    "v1",
    "ValidatingAdmissionPolicy",
    "validatingadmissionpolicies",
)
POLICY_BINDING = Kind(
    "admissionregistration.k8s.io",
    "v1",
    "ValidatingAdmissionPolicyBinding",
    "validatingadmissionpolicybindings",
)
CLUSTER_KINDS = (NAMESPACE, DEFINITION, POLICY, POLICY_BINDING)
JSON_PATCH, MERGE_PATCH = "application/json-patch+json", "application/merge-patch+json"


class Client:
    """Calls of tests, also in place of a controller."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        configuration = Configuration()
        configuration.retries = False
        load_kube_config(str(kubeconfig), client_configuration=configuration)
        self._client = DynamicClient(
            ApiClient(configuration), discoverer=lambda _client, _cache_file: None
        )
        self._namespace = namespace

    def close(self) -> None:
        self._client.client.close()

    def get(self, kind: Kind, name: str) -> Json:
        return self._call("get", kind, name=name)

    def list(self, kind: Kind, labels: dict[str, str] | None = None) -> list[Json]:
        selector = ",".join(f"{key}={value}" for key, value in (labels or {}).items())
        found: list[Json] = self._call("get", kind, label_selector=selector)["items"]
        return found

    def create(self, kind: Kind, value: Json) -> None:
        self._call("create", kind, value)

    def apply(self, kind: Kind, value: Json) -> None:
        self._call("server_side_apply", kind, value)

    def replace(self, kind: Kind, value: Json, subresource: str = "") -> None:
        name = value["metadata"]["name"]
        self._call("replace", kind, value, name=f"{name}{subresource}")

    def patch(
        self,
        kind: Kind,
        name: str,
        change: object,
        content_type: str = MERGE_PATCH,
        subresource: str = "",
    ) -> None:
        options = {"name": f"{name}{subresource}", "content_type": content_type}
        self._call("patch", kind, None, body=change, **options)

    def delete(self, kind: Kind, name: str) -> None:
        self._call("delete", kind, name=name)

    def _call(self, verb: str, kind: Kind, value: Json | None = None, **options: Any) -> Json:
        resource = Resource(
            prefix="apis" if kind.group else "api",
            group=kind.group,
            api_version=kind.version,
            kind=kind.name,
            name=kind.plural,
            namespaced=kind not in CLUSTER_KINDS,
            client=self._client,
        )
        if value is not None:
            options["body"] = {"apiVersion": kind.api_version, "kind": kind.name, **value}
        if verb in ("create", "server_side_apply", "replace", "patch"):
            options["field_manager"] = "tests"
        namespace = (value or {}).get("metadata", {}).get("namespace", self._namespace)
        found = getattr(self._client, verb)(
            resource, namespace=namespace, serializer=lambda _client, raw: raw, **options
        )
        return dict(found)


class ApiServer:
    """kube-apiserver and etcd in ``folder``, on free ports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.etcd, self.program = _program("etcd"), cached("kubernetes-*/bin/kube-apiserver")
        files = {cached(f"*/modules/{path}"): names for path, names in DEFINITIONS.items()}
        self._tokens = {user: secrets.token_hex(16) for user in USERS}
        self._processes: list[subprocess.Popen[bytes]] = []
        self._clients: list[Client] = []
        client, peer, self.port = free_ports(3)
        self._prepare()
        try:
            self._start_etcd(client, peer)
            self._start_server(client)
            self.admin = self.client("admin")
            self._wait(lambda: self.admin.get(NAMESPACE, "default"))
            for path, names in files.items():
                self._define(definitions(path, names))
        except BaseException:
            self.stop()
            raise

    def kubeconfig(self, user: str) -> Path:
        """Return the path of a kubeconfig for one of USERS."""
        path = self.folder / f"{user}.kubeconfig"
        cluster = {
            "server": f"https://{HOST}:{self.port}",
            "certificate-authority": str(self.folder / "server.crt"),
        }
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": self._tokens[user]}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
        }
        path.write_text(yaml.safe_dump(config))
        return path

    def client(self, user: str, namespace: str = "default") -> Client:
        """Connect as one of USERS."""
        client = Client(self.kubeconfig(user), namespace)
        self._clients.append(client)
        return client

    @contextlib.contextmanager
    def environment(self, user: str) -> Iterator[None]:
        """Set KUBECONFIG to the credentials of a user during a block."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KUBECONFIG", str(self.kubeconfig(user)))
            yield

    def make_namespace(self) -> str:
        """Create a namespace with a unique name and return the name."""
        name = f"test-{uuid.uuid4().hex[:8]}"
        self.admin.create(NAMESPACE, {"metadata": {"name": name}})
        return name

    def allow(self, user: str, namespace: str, rules: list[dict[str, Any]]) -> None:
        """Give a user a Role with exactly these rules."""
        name = f"{user}-{uuid.uuid4().hex[:8]}"
        metadata = {"name": name, "namespace": namespace}
        group = "rbac.authorization.k8s.io"
        self.admin.create(ROLE, {"metadata": metadata, "rules": rules})
        binding = {
            "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
        }
        self.admin.create(BINDING, binding)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Suspend the server during a block, so that it does not answer."""
        server = self._processes[-1]
        server.send_signal(signal.SIGSTOP)
        os.waitpid(server.pid, os.WUNTRACED)  # before that, a thread may still answer
        try:
            yield
        finally:
            server.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End the server and etcd."""
        for client in self._clients:
            client.close()
        for process in reversed(self._processes):
            process.kill()
            process.wait(30)

    def _prepare(self) -> None:
        lines = [
            f'{token},{user},{user},"{"system:masters" if user == "admin" else ""}"'
            for user, token in self._tokens.items()
        ]
        (self.folder / "tokens.csv").write_text("\n".join(lines) + "\n")
        certificate = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        certificate += ["-nodes", "-days", "2", "-subj", "/CN=test"]
        certificate += ["-addext", f"subjectAltName=IP:{HOST}"]
        self._openssl("req", *certificate, "-keyout", "server.key", "-out", "server.crt")
        self._openssl("genrsa", "-out", "accounts.key", "2048")

    def _openssl(self, *words: str) -> None:
        command = [_program("openssl"), *words]
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True, timeout=60)

    def _start_etcd(self, client: int, peer: int) -> None:
        urls = f"http://{HOST}:{client}"
        peers = f"http://{HOST}:{peer}"
        self._start(
            [
                self.etcd,
                f"--data-dir={self.folder / 'etcd'}",
                f"--listen-client-urls={urls}",
                f"--advertise-client-urls={urls}",
                f"--listen-peer-urls={peers}",
                f"--initial-advertise-peer-urls={peers}",
                f"--initial-cluster=default={peers}",
                "--unsafe-no-fsync",
            ]
        )

    def _start_server(self, etcd: int) -> None:
        self._start(
            [
                self.program,
                f"--etcd-servers=http://{HOST}:{etcd}",
                f"--bind-address={HOST}",
                f"--secure-port={self.port}",
                "--endpoint-reconciler-type=none",  # a Service cannot have a loopback address
                f"--tls-cert-file={self.folder / 'server.crt'}",
                f"--tls-private-key-file={self.folder / 'server.key'}",
                f"--token-auth-file={self.folder / 'tokens.csv'}",
                "--authorization-mode=RBAC",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={self.folder / 'accounts.key'}",
                f"--service-account-signing-key-file={self.folder / 'accounts.key'}",
                "--service-cluster-ip-range=10.0.0.0/24",
                "--disable-admission-plugins=ServiceAccount",  # no controller creates accounts
            ]
        )

    def _start(self, command: list[str]) -> None:
        log = self.folder / f"{Path(command[0]).name}.log"
        with log.open("wb") as file:
            self._processes.append(
                subprocess.Popen(
                    command,
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    preexec_fn=lambda: os.nice(5),  # noqa: PLW1509 - no thread has started yet
                )
            )

    def _define(self, definitions: Iterator[dict[str, Any]]) -> None:
        for definition in definitions:
            self.admin.create(DEFINITION, definition)
            spec = definition["spec"]
            for version in (each for each in spec["versions"] if each["served"]):
                names = spec["names"]["kind"], spec["names"]["plural"]
                kind = Kind(spec["group"], version["name"], *names)
                self._wait(lambda kind=kind: self.admin.list(kind))

    def _wait(self, call: Callable[[], object]) -> None:
        """Wait until a call succeeds."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                call()
            except (ApiException, urllib3.exceptions.HTTPError) as error:
                ended = [p.args for p in self._processes if p.poll() is not None]
                if ended or time.monotonic() > deadline:
                    raise RuntimeError(f"{self.folder}: no API server: {ended or error}") from error
                time.sleep(0.1)
            else:
                return


@pytest.fixture(scope="session")
def api_server() -> Iterator[ApiServer]:
    """One API server for all tests of a session; each test uses namespaces of its own."""
    folder = Path(tempfile.mkdtemp(prefix="watchkeeper-api-server-"))
    try:
        try:
            server = ApiServer(folder)
        except MissingError as missing:
            if REQUIRED:
                raise
            pytest.skip(str(missing))
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise MissingError(f"no {name} on the PATH: 'make cluster' installs it")
    return found


def definitions(path: str, names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Parse only the wanted definitions of a large file."""
    for text in Path(path).read_text().split("\n---\n"):
        if any(f"\n    plural: {name}\n" in text for name in names):
            yield yaml.load(text, Loader=yaml.CSafeLoader)
