"""One installation of the chart, in namespaces of its own, and everything that belongs to it."""

import json
import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from databases import from_outside, shown
from evidence import write_evidence
from kube import ROOT, Json, apply, ask, get, helm, items, kubectl, secret, secret_of
from plant import Plant
from sqlalchemy import make_url

from watchkeeper.demo import ledger as demo_ledger
from watchkeeper.demo.shares import Step
from watchkeeper.demo.system import Endpoints
from watchkeeper.demo.worlds import WORLDS
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.events import Event

RELEASE = "watchkeeper"
CHART = ROOT / "charts/watchkeeper"
IMAGES = Path(os.environ.get("WATCHKEEPER_IMAGES") or ROOT / ".images/values.yaml")
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
CONTAINERS = ("initContainerStatuses", "containerStatuses")
PORTS = range(8200, 9000)  # one of them is the Gateway's
# Everything that takes minutes or days elsewhere, in seconds; at some sixty requests a second.
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
    "latency_floor": 0.005,
    "patience": 120.0,
    "watch_seconds": 5.0,
}


class Installation:
    """``namespace`` has the release, ``training`` its Jobs.

    With a name, what is there in namespaces of that name is taken over and left behind.
    """

    def __init__(self, folder: Path, name: str = "") -> None:
        self.folder = folder
        self.lasting = bool(name)
        self.namespace = name or f"e2e-{secrets.token_hex(3)}"
        self.training = f"{self.namespace}-training"
        self.port = _port(self.namespace)
        self.plant: Plant
        self.ledger: Ledger

    @property
    def namespaces(self) -> tuple[str, str, str]:
        return self.namespace, self.training, f"{self.namespace}-plant"

    def begin(self) -> None:
        """Make the namespaces, and install the release while the plants get their past."""
        for name in self.namespaces:
            metadata = {"name": name, "labels": RESTRICTED}
            apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        with ThreadPoolExecutor() as aside:
            planted = aside.submit(self._plant)
            self.install()
            self.plant = planted.result()
        url = make_url(self.secret("ledger-url"))
        self.ledger = Ledger(shown(from_outside(url, self.namespace, "watchkeeper-postgresql")))

    def _plant(self) -> Plant:
        """Have the plants' database; the first training Jobs wait for the Secret with its URL."""
        made = Plant(self.namespaces[2], image("postgresql"))
        apply(secret_of(self.training, "plant", {"url": made.inside}))
        return made

    def values(self) -> Json:
        model = {
            "source": {"secretName": "plant", "key": "url"},
            "policies": {"drift": DRIFT, "rollout": ROLLOUT},
        }
        return {
            "models": {"ai4i-failure": {**model, "replicas": 2}, "warranty-risk": model},
            "training": {"createNamespace": False},
            "rollout": {"turnSeconds": 0.5},
            # A machine that trains, serves and asks at once makes requests wait; none shall be
            # turned away while the gateway still waits for the answer.
            "serving": {"queueSeconds": 8.0},
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

    def secret(self, key: str) -> str:
        return secret(self.namespace, "watchkeeper", key)

    def endpoints(self) -> Endpoints:
        """Where clients outside find the models."""
        gateway = get("gateway", "watchkeeper", f"--namespace={self.namespace}")
        address = gateway["status"]["addresses"][0]["value"]
        return Endpoints(f"http://{address}:{self.port}", hosts={model: model for model in WORLDS})

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
        selector = f"--selector=watchkeeper/model={model}"
        return items("jobs", selector, f"--namespace={self.training}")

    def pods(self, model: str, version: int) -> list[Json]:
        selector = f"--selector=watchkeeper/model={model},watchkeeper/version={version}"
        return items("pods", selector, f"--namespace={self.namespace}")

    def restarts(self, model: str, version: int) -> list[int]:
        """Return for each pod of a version how often its containers were started again."""
        return [
            sum(one["restartCount"] for key in CONTAINERS for one in pod["status"].get(key, []))
            for pod in self.pods(model, version)
        ]

    def events(self, model: str) -> list[Event]:
        """Return every decision so far, oldest first."""
        return demo_ledger.events(self.ledger, model)

    def versions(self, model: str, kind: str) -> list[int]:
        """Return the versions of all events of a kind, in order."""
        known = self.events(model)
        return [e.version for e in known if e.kind == kind and e.version is not None]

    def episodes(self, model: str) -> set[str]:
        """Return the ids of the episodes of drift."""
        return {e.details["episode"] for e in self.events(model) if e.kind == "episode"}

    def steps(self, model: str, version: int) -> list[Step]:
        """Return the traffic steps of a version, with the requests counted in each."""
        found = demo_ledger.steps(self.ledger, model, self.events(model))
        return [step for step in found if step.version == version]

    def evidence(self) -> Path:
        return write_evidence(self.namespaces, self.folder)

    def remove(self) -> None:
        """Remove all of it, the volumes too."""
        words = (RELEASE, f"--namespace={self.namespace}", "--ignore-not-found")
        ask("helm", "uninstall", *words, "--timeout=3m", seconds=200.0)
        options = ("--ignore-not-found", "--wait=true", "--timeout=170s")
        kubectl("delete", "namespace", *self.namespaces, *options, seconds=180.0)


def image(component: str) -> str:
    """Name an image as the chart does."""
    words = images()
    return f"{words['registry']}/watchkeeper-{component}:{words['tag']}"


def images() -> dict[str, str]:
    """Return registry and tag, from the values that `make images` or a person wrote."""
    lines = (line.strip().split(": ") for line in IMAGES.read_text().splitlines()[1:])
    return {key: value.strip("\"'") for key, value in lines}


def _port(namespace: str) -> int:
    """Return the port of the Gateway that is there, or one that no other has."""
    gateways = items("gateways.gateway.networking.k8s.io", "--all-namespaces")
    taken = {
        listener["port"]: gateway["metadata"]["namespace"]
        for gateway in gateways
        for listener in gateway["spec"]["listeners"]
    }
    mine = [port for port, owner in taken.items() if owner == namespace]
    return mine[0] if mine else secrets.choice([port for port in PORTS if port not in taken])
