"""A Kubernetes API server of the tests' own: the real kube-apiserver and etcd, with the custom
resources of KServe, the Gateway API and Envoy Gateway, and nothing else: no controller, no node.

A pytest plugin: ``pytest_plugins = ["api_server"]``. Programs and definitions are those that
``make cluster`` keeps. WATCHKEEPER_TEST_API_SERVER=required makes what is missing a failure
instead of a skip. What controllers would write, tests write, and say so: see as_controllers.py.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import lightkube
import pytest
import yaml
from lightkube.config.kubeconfig import KubeConfig
from lightkube.core.exceptions import ApiError
from lightkube.generic_resource import create_global_resource, create_namespaced_resource

HOST = "127.0.0.1"
START_SECONDS = 120.0
REQUIRED = os.environ.get("WATCHKEEPER_TEST_API_SERVER") == "required"
CACHES = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
KEPT = Path(os.environ.get("WATCHKEEPER_CLUSTER_CACHE") or CACHES / "watchkeeper-cluster")
USERS = ("admin", "rollout", "sidecar", "person")
DEFINITIONS = {
    "github.com_kserve_kserve/install/v0.20.0/kserve-crds.yaml": ("inferenceservices",),
    "sigs.k8s.io_gateway-api/config/crd/standard/gateway.networking.k8s.io_httproutes.yaml": (
        "httproutes",
    ),
    "github.com_envoyproxy_gateway/charts/gateway-helm/charts/crds/crds/generated/"
    "gateway.envoyproxy.io_backendtrafficpolicies.yaml": ("backendtrafficpolicies",),
}

NAMESPACE = create_global_resource("", "v1", "Namespace", "namespaces")
DEFINITION = create_global_resource(
    "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions"
)
ROLE = create_namespaced_resource("rbac.authorization.k8s.io", "v1", "Role", "roles")
POLICY, POLICY_BINDING = (
    create_global_resource("admissionregistration.k8s.io", "v1", kind, plural)
    for kind, plural in (
        ("ValidatingAdmissionPolicy", "validatingadmissionpolicies"),
        ("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings"),
    )
)
BINDING = create_namespaced_resource(
    "rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings"
)


class MissingError(Exception):
    """What the API server needs is not on this machine."""


class ApiServer:
    """kube-apiserver and etcd in ``folder``, on free ports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.etcd, self.program = _program("etcd"), _kept("kubernetes-*/bin/kube-apiserver")
        definitions = {_kept(f"*/modules/{path}"): names for path, names in DEFINITIONS.items()}
        self._tokens = {user: secrets.token_hex(16) for user in USERS}
        self._processes: list[subprocess.Popen[bytes]] = []
        self._clients: list[lightkube.Client] = []
        client, peer, self.port = _free_ports(3)
        self._prepare()
        try:
            self._start_etcd(client, peer)
            self._start_server(client)
            self.admin = self.client("admin")
            self._wait(lambda: self.admin.get(NAMESPACE, "default"))
            for path, names in definitions.items():
                self._define(_definitions(path, names))
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

    def client(self, user: str, namespace: str = "default") -> lightkube.Client:
        """Connect as one of USERS."""
        config = KubeConfig.from_file(self.kubeconfig(user))
        client = lightkube.Client(config=config, namespace=namespace, field_manager="tests")
        self._clients.append(client)
        return client

    @contextlib.contextmanager
    def environment(self, user: str) -> Iterator[None]:
        """Have KUBECONFIG name the user's credentials for a block."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KUBECONFIG", str(self.kubeconfig(user)))
            yield

    def make_namespace(self) -> str:
        """Make a namespace of its own name."""
        name = f"test-{uuid.uuid4().hex[:8]}"
        self.admin.create(NAMESPACE({"metadata": {"name": name}}))
        return name

    def allow(self, user: str, namespace: str, rules: list[dict[str, Any]]) -> None:
        """Give a user a Role with exactly these rules."""
        name = f"{user}-{uuid.uuid4().hex[:8]}"
        metadata = {"name": name, "namespace": namespace}
        group = "rbac.authorization.k8s.io"
        self.admin.create(ROLE({"metadata": metadata, "rules": rules}))
        binding = {
            "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
        }
        self.admin.create(BINDING(binding))

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Have the server answer nothing for a block."""
        server = self._processes[-1]
        server.send_signal(signal.SIGSTOP)
        os.waitpid(server.pid, os.WUNTRACED)  # until then a thread of it may still answer
        try:
            yield
        finally:
            server.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End both."""
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
                "--endpoint-reconciler-type=none",  # a loopback address is none for a Service
                f"--tls-cert-file={self.folder / 'server.crt'}",
                f"--tls-private-key-file={self.folder / 'server.key'}",
                f"--token-auth-file={self.folder / 'tokens.csv'}",
                "--authorization-mode=RBAC",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={self.folder / 'accounts.key'}",
                f"--service-account-signing-key-file={self.folder / 'accounts.key'}",
                "--service-cluster-ip-range=10.0.0.0/24",
                "--disable-admission-plugins=ServiceAccount",  # no controller makes any
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
            self.admin.create(DEFINITION(definition))
            spec = definition["spec"]
            for version in spec["versions"]:
                names = spec["names"]["kind"], spec["names"]["plural"]
                kind = create_namespaced_resource(spec["group"], version["name"], *names)
                self._wait(lambda kind=kind: list(self.admin.list(kind, namespace="default")))

    def _wait(self, call: Callable[[], object]) -> None:
        """Wait until a call is answered."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                call()
            except (ApiError, httpx2.HTTPError) as error:
                ended = [p.args for p in self._processes if p.poll() is not None]
                if ended or time.monotonic() > deadline:
                    raise RuntimeError(f"{self.folder}: no API server: {ended or error}") from error
                time.sleep(0.1)
            else:
                return


@pytest.fixture(scope="session")
def api_server() -> Iterator[ApiServer]:
    """One API server for all tests of a run; each has a namespace of its own."""
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


def _kept(pattern: str) -> str:
    found = sorted(KEPT.glob(pattern), key=lambda path: path.stat().st_mtime)
    if not found:
        raise MissingError(f"no {KEPT / pattern}: 'make cluster' builds it")
    return str(found[-1])


def _definitions(path: str, names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Parse only what is wanted of a file of megabytes."""
    for text in Path(path).read_text().split("\n---\n"):
        if any(f"\n    plural: {name}\n" in text for name in names):
            yield yaml.load(text, Loader=yaml.CSafeLoader)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]
