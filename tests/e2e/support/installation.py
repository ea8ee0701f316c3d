"""One installation of the chart, in namespaces of its own, and everything that belongs to it."""

import json
import os
import secrets
from pathlib import Path
from typing import Any

from evidence import write_evidence
from kube import ROOT, Json, apply, ask, get, helm, items, kubectl, until
from sqlalchemy import URL, create_engine, make_url, text

from watchkeeper.demo.system import Endpoints
from watchkeeper.demo.worlds import WORLDS, find
from watchkeeper.ledger import Ledger

RELEASE = "watchkeeper"
CHART = ROOT / "charts/watchkeeper"
IMAGES = Path(os.environ.get("WATCHKEEPER_IMAGES") or ROOT / ".images/values.yaml")
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
PORTS = range(8200, 9000)  # one of them is the Gateway's
DATABASE = "operational"
# Everything that takes minutes or days elsewhere, in seconds; at some forty requests a second.
DRIFT = {
    "window": 400,
    "every": 100,
    "confirm": 2,
    "minimum_labels": 400,
    "minimum_positives": 40,
    "label_timeout": 60.0,
    "cool_down": 10.0,
}
ROLLOUT = {
    "steps": [10, 25, 50],
    "step_seconds": 4.0,
    "minimum_requests": 20,
    "patience": 120.0,
    "watch_seconds": 5.0,
}


class Installation:
    """``namespace`` has the release, ``training`` its Jobs, ``plant`` the operational database."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.namespace = f"e2e-{secrets.token_hex(3)}"
        self.training = f"{self.namespace}-training"
        self.plant = f"{self.namespace}-plant"
        self.port = _free_port()
        self.source: URL
        self.ledger: Ledger

    @property
    def namespaces(self) -> tuple[str, str, str]:
        return self.namespace, self.training, self.plant

    def make_plant(self) -> None:
        """Make the namespaces, and an operational database with the past of every world."""
        for name in self.namespaces:
            metadata = {"name": name, "labels": RESTRICTED}
            apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        password = secrets.token_hex(16)
        apply(*_database(self.plant, password, _image("postgresql")))
        ready = ("deployment/postgresql", f"--namespace={self.plant}", "--timeout=170s")
        kubectl("rollout", "status", *ready, seconds=180.0)
        inside = URL.create(
            "postgresql+psycopg",
            "watchkeeper",
            password,
            f"postgresql.{self.plant}.svc",
            5432,
            DATABASE,
        )
        self.source = _from_outside(inside, self.plant, "postgresql")
        until("the plant's database answers", lambda: _answers(self.source))
        shown = self.source.render_as_string(hide_password=False)
        for model in WORLDS:
            find(model).seed(shown)
        url = inside.render_as_string(hide_password=False)
        apply(_secret(self.training, "plant", {"url": url}))

    def values(self) -> Json:
        model = {
            "source": {"secretName": "plant", "key": "url"},
            "policies": {"drift": DRIFT, "rollout": ROLLOUT},
        }
        return {
            "models": {"ai4i-failure": {**model, "replicas": 2}, "warranty-risk": model},
            "training": {"createNamespace": False},
            "rollout": {"turnSeconds": 0.5},
            "gateway": {"port": self.port},
            "networkPolicies": {"source": [{"ports": [{"port": 5432}]}]},
        }

    def install(self, **more: Any) -> None:
        """Install the release, or upgrade it with ``more`` values."""
        file = self.folder / "values.json"
        file.write_text(json.dumps({**self.values(), **more}))
        helm(
            *("upgrade", "--install", RELEASE, str(CHART), f"--namespace={self.namespace}"),
            *(f"--values={IMAGES}", f"--values={file}", "--wait", "--timeout=8m"),
        )

    def connect(self) -> None:
        """Open the ledger from outside, by a port of the node's beside the chart's Service."""
        secret = self.secret("ledger-url")
        self.ledger = Ledger(
            _from_outside(
                make_url(secret), self.namespace, "watchkeeper-postgresql"
            ).render_as_string(hide_password=False)
        )

    def secret(self, key: str) -> str:
        words = (
            f"--namespace={self.namespace}",
            f"--output=go-template={{{{index .data `{key}` | base64decode}}}}",
        )
        return kubectl("get", "secret", "watchkeeper", *words)

    def endpoints(self) -> Endpoints:
        """Where clients outside find the models."""
        gateway = get("gateway", "watchkeeper", f"--namespace={self.namespace}")
        address = gateway["status"]["addresses"][0]["value"]
        return Endpoints(
            v2=f"http://{address}:{self.port}",
            mlflow="",
            drift="",
            metrics="",
            ledger="",
            hosts={model: model for model in WORLDS},
        )

    def watchkeeper(self, *words: str) -> Any:
        """Run a command of Watchkeeper's in the pod that is there for it."""
        place = ("exec", "deploy/watchkeeper-cli", f"--namespace={self.namespace}", "--")
        return json.loads(kubectl(*place, "watchkeeper", *words, "--json", seconds=120.0))

    def model(self, name: str) -> Json:
        """Return what `watchkeeper status` tells of a model."""
        found = self.watchkeeper("status")
        one: Json = next(model for model in found["models"] if model["name"] == name)
        return one

    def jobs(self, model: str) -> list[Json]:
        return items(
            "jobs", f"--selector=watchkeeper/model={model}", f"--namespace={self.training}"
        )

    def pods(self, model: str, version: int) -> list[Json]:
        selector = f"--selector=watchkeeper/model={model},watchkeeper/version={version}"
        return items("pods", selector, f"--namespace={self.namespace}")

    def evidence(self) -> Path:
        return write_evidence(self.namespaces, self.folder)

    def remove(self) -> None:
        """Remove all of it, the volumes too."""
        ask(
            "helm",
            "uninstall",
            RELEASE,
            f"--namespace={self.namespace}",
            "--ignore-not-found",
            "--wait",
            "--timeout=3m",
            seconds=200.0,
        )
        words = ("--ignore-not-found", "--wait=true", "--timeout=170s")
        kubectl("delete", "namespace", *self.namespaces, *words, seconds=180.0)


def _free_port() -> int:
    taken = {
        listener["port"]
        for gateway in items("gateways.gateway.networking.k8s.io", "--all-namespaces")
        for listener in gateway["spec"]["listeners"]
    }
    return secrets.choice([port for port in PORTS if port not in taken])


def _image(component: str) -> str:
    """Name an image as the chart does, by the values that `make images` wrote."""
    words = dict(line.strip().split(": ") for line in IMAGES.read_text().splitlines()[1:])
    return f"{words['registry']}/watchkeeper-{component}:{words['tag']}"


def _secret(namespace: str, name: str, values: dict[str, str]) -> Json:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": values}


def _database(namespace: str, password: str, image: str) -> list[Json]:
    labels = {"app": "postgresql"}
    metadata = {"name": "postgresql", "namespace": namespace}
    container = {
        "name": "postgresql",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": "POSTGRESQL_DATABASES", "value": DATABASE}],
        "readinessProbe": {
            "exec": {"command": ["pg_isready", "-h", "127.0.0.1"]},
            "periodSeconds": 2,
        },
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [
            {"name": "data", "mountPath": "/var/lib/postgresql/data"},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
            {"name": "secrets", "mountPath": "/run/secrets/watchkeeper"},
        ],
    }
    pod = {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "data", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
            {"name": "secrets", "secret": {"secretName": "postgresql"}},
        ],
    }
    template = {"metadata": {"labels": labels}, "spec": pod}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    ports = {"selector": labels, "ports": [{"port": 5432}]}
    return [
        _secret(namespace, "postgresql", {"database-password": password}),
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec},
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": ports},
    ]


def _from_outside(url: URL, namespace: str, service: str) -> URL:
    """Return a database's URL by a port of the node's, which needs no API server to stay open."""
    name = f"{service}-outside"
    selector = get("service", service, f"--namespace={namespace}")["spec"]["selector"]
    metadata = {"name": name, "namespace": namespace}
    spec = {"type": "NodePort", "selector": selector, "ports": [{"port": 5432}]}
    apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
    made = get("service", name, f"--namespace={namespace}")
    node = items("nodes")[0]["status"]["addresses"]
    address = next(one["address"] for one in node if one["type"] == "InternalIP")
    return url.set(host=address, port=made["spec"]["ports"][0]["nodePort"])


def _answers(url: URL) -> bool:
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            return connection.execute(text("SELECT 1")).scalar_one() == 1
    finally:
        engine.dispose()
