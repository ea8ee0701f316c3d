"""One installation of the chart in namespaces of its own, with the database of the plants."""

import json
import os
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from declared_models import FIRST, MODELS
from diagnostics import write_diagnostics
from kube import (
    ROOT,
    Json,
    apply,
    get,
    helm,
    items,
    kubectl,
    read_secret,
    run_command,
    secret,
    wait_until,
)
from node_port import expose_on_node, with_password
from plant_database import PlantDatabase
from sqlalchemy import make_url

from watchkeeper.core.events import (
    EpisodeChanged,
    Event,
    GatePassed,
    GateRejected,
    Promoted,
    RolledBack,
    Watched,
)
from watchkeeper.demo.shares import CanaryStep, count_steps
from watchkeeper.demo.system import Endpoints
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.events import history

RELEASE = "watchkeeper"
CHART = ROOT / "charts/watchkeeper"
FOLDER = Path(os.environ.get("WATCHKEEPER_E2E") or ROOT / ".watchkeeper/e2e")
IMAGES = Path(os.environ.get("WATCHKEEPER_IMAGES") or ROOT / ".images/values.yaml")
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
CONTAINER_STATUSES = ("initContainerStatuses", "containerStatuses")
PORTS = range(8200, 9000)  # the Gateway gets a free one
FIRST_VERSION_SECONDS = 400.0
# Minutes and days become seconds, at about sixty requests per second.
DRIFT_POLICY = {
    "window": 400,
    "every": 100,
    "confirm": 2,
    "minimum_labels": 400,
    "minimum_positives": 40,
    "label_timeout": 60.0,
    "cool_down": 10.0,
    "training_distance": 10.0,
    "training_distance_rows": 0,
    "settled": 10.0,
}
ROLLOUT_POLICY: dict[str, Any] = {
    "steps": [10, 25, 50],
    "step_seconds": 4.0,
    "minimum_requests": 20,
    "latency_floor": 0.005,
    "patience": 120.0,
    "watch_seconds": 5.0,
}
VersionEvent = type[GatePassed | GateRejected | Promoted | RolledBack | Watched]


class FirstVersion(msgspec.Struct, frozen=True):
    """What a new installation has done for a model when its first version serves."""

    gate_passed: list[int]
    promoted: list[int]
    weights: dict[str, int]
    jobs: int
    restarts: list[int]


class Installation:
    """The release, its namespaces, and the database of the plants.

    Attributes:
        folder: a folder for files of the scenarios.
        persistent: the installation has a given name: it is adopted if it exists, and not removed.
        models: the models of the release.
        chart: the folder of the chart.
        namespace: the namespace of the release.
        training: the namespace of its training Jobs.
        plant: the database of the plants.
        ledger: the ledger.
        first_versions: the first version of each model, if this object has installed them.
    """

    plant: PlantDatabase
    ledger: Ledger

    def __init__(self, folder: Path, name: str = "", models: tuple[str, ...] = MODELS) -> None:
        self.folder = folder
        self.models = models
        self.chart = CHART
        self.persistent = bool(name)
        self.namespace = name or f"e2e-{secrets.token_hex(3)}"
        self.training = f"{self.namespace}-training"
        self.first_versions: dict[str, FirstVersion] = {}
        self._port = _gateway_port(self.namespace)
        self._started = False

    @property
    def namespaces(self) -> tuple[str, str, str]:
        return self.namespace, self.training, f"{self.namespace}-plant"

    def ensure(self) -> None:
        """Install the release if it is missing, and wait until every model has a version."""
        namespace = f"--namespace={self.namespace}"
        if self._started and get("deployment", f"{RELEASE}-rollout", namespace):
            return
        is_new = not get("httproute", FIRST, namespace)
        self.close()
        self._start()
        for model in self.models:
            wait_until(
                f"{model} has a version in production",
                lambda model=model: self.versions(model, Promoted),
                FIRST_VERSION_SECONDS,
            )
        if is_new:
            self.first_versions = {model: self._first_version(model) for model in self.models}

    def _start(self) -> None:
        """Create the namespaces, and install the release while the plants get their history."""
        for name in self.namespaces:
            metadata = {"name": name, "labels": RESTRICTED}
            apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        with ThreadPoolExecutor() as executor:
            plant = executor.submit(self._start_plant)
            self.install()
            self.plant = plant.result()
        url = make_url(self.secret("ledger-url"))
        outside = expose_on_node(url, self.namespace, f"{RELEASE}-postgresql")
        self.ledger = Ledger(with_password(outside))
        self._started = True

    def _start_plant(self) -> PlantDatabase:
        """Start the database of the plants. The first training Jobs wait for the Secret."""
        plant = PlantDatabase(self.namespaces[2], image("postgresql"))
        apply(secret(self.training, "plant", {"url": plant.inside}))
        return plant

    def _first_version(self, model: str) -> FirstVersion:
        return FirstVersion(
            gate_passed=self.versions(model, GatePassed),
            promoted=self.versions(model, Promoted),
            weights=self.model(model)["weights"],
            jobs=len(self.jobs(model)),
            restarts=self.restarts(model, 1),
        )

    def close(self) -> None:
        """Close the connections to the ledger."""
        if self._started:
            self.ledger.close()
            self._started = False

    def values(self) -> Json:
        """Return the values of the release."""
        model = {
            "source": {"secretName": "plant", "key": "url"},
            "policies": {"drift": DRIFT_POLICY, "rollout": ROLLOUT_POLICY},
        }
        return {
            "models": {
                name: {**model, "replicas": 2} if name == FIRST else model for name in self.models
            },
            "training": {"createNamespace": False},
            "rollout": {"turnSeconds": 0.5, "removalSeconds": 5},
            # A machine that trains, serves and sends at the same time delays requests. The server
            # must not reject them while the gateway still waits.
            "serving": {"queueSeconds": 8.0},
            "gateway": {"port": self._port},
            "networkPolicies": {"source": [{"ports": [{"port": 5432}]}]},
        }

    def install(self, **values: Any) -> None:
        """Install or upgrade the release, with ``values`` that replace those of ``values()``."""
        file = self.folder / "values.json"
        file.write_text(json.dumps({**self.values(), **values}))
        helm(
            *("upgrade", "--install", RELEASE, str(self.chart), f"--namespace={self.namespace}"),
            *(f"--values={IMAGES}", f"--values={file}", "--wait", "--timeout=8m"),
        )

    def secret(self, key: str) -> str:
        """Return a value of the release's Secret."""
        return read_secret(self.namespace, RELEASE, key)

    def endpoints(self) -> Endpoints:
        """Return the addresses for clients outside of the cluster."""
        gateway = get("gateway", RELEASE, f"--namespace={self.namespace}")
        address = gateway["status"]["addresses"][0]["value"]
        hosts = {model: model for model in self.models}
        return Endpoints(f"http://{address}:{self._port}", hosts=hosts)

    def in_cli(self, *words: str, given: str | None = None, seconds: float = 120.0) -> str:
        """Run a command in the pod of the command line; return its output."""
        pod = ("exec", "-i", f"deploy/{RELEASE}-cli", f"--namespace={self.namespace}", "--")
        return kubectl(*pod, *words, given=given, seconds=seconds)

    def watchkeeper(self, *words: str) -> Any:
        """Run a `watchkeeper` command in the pod of the command line; return its JSON output."""
        return json.loads(self.in_cli("watchkeeper", *words, "--json"))

    def model(self, name: str) -> Json:
        """Return a model in the output of `watchkeeper status`."""
        status = self.watchkeeper("status")
        found: Json = next(model for model in status["models"] if model["name"] == name)
        return found

    def jobs(self, model: str) -> list[Json]:
        """Return the training Jobs of a model."""
        selector = f"--selector=watchkeeper/model={model}"
        return items("jobs", selector, f"--namespace={self.training}")

    def pods(self, model: str, version: int) -> list[Json]:
        """Return the pods that serve a version."""
        selector = f"--selector=watchkeeper/model={model},watchkeeper/version={version}"
        return items("pods", selector, f"--namespace={self.namespace}")

    def restarts(self, model: str, version: int) -> list[int]:
        """Return the number of container restarts for each pod of a version."""
        return [
            sum(
                status["restartCount"]
                for key in CONTAINER_STATUSES
                for status in pod["status"].get(key, [])
            )
            for pod in self.pods(model, version)
        ]

    def events(self, model: str) -> list[Event]:
        """Return all events of a model, oldest first."""
        return history(self.ledger, model, limit=100_000)

    def versions(self, model: str, kind: VersionEvent) -> list[int]:
        """Return the versions of all events of a kind, in order."""
        events = history(self.ledger, model, kind=kind, limit=100_000)
        return [event.version for event in events if event.version is not None]

    def episodes(self, model: str) -> set[str]:
        """Return the ids of the drift episodes of a model."""
        events = history(self.ledger, model, kind=EpisodeChanged, limit=100_000)
        details = [event.details for event in events]
        return {each.episode for each in details if isinstance(each, EpisodeChanged)}

    def steps(self, model: str, version: int) -> list[CanaryStep]:
        """Return the canary steps of a version, with the requests of each."""
        steps = count_steps(self.ledger, model, self.events(model))
        return [step for step in steps if step.version == version]

    def write_diagnostics(self, name: str) -> Path:
        """Write events, objects and logs into a folder, and return it."""
        return write_diagnostics(self.namespaces, self.folder / name)

    def remove(self) -> None:
        """Remove the release, the namespaces and all volumes."""
        words = (RELEASE, f"--namespace={self.namespace}", "--ignore-not-found")
        run_command("helm", "uninstall", *words, "--timeout=3m", seconds=200.0)
        options = ("--ignore-not-found", "--wait=true", "--timeout=170s")
        kubectl("delete", "namespace", *self.namespaces, *options, seconds=180.0)
        storage = f"clusterstoragecontainers/{RELEASE}.{self.namespace}.files"
        kubectl("delete", storage, "--ignore-not-found")


Own = TypeVar("Own", bound=Installation)


@contextmanager
def installed(made: Own) -> Iterator[Own]:
    """Install what a scenario has for itself, and remove it at the end of the block."""
    made.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        made.ensure()
        yield made
    finally:
        made.write_diagnostics("end")
        made.close()
        made.remove()


def image(component: str) -> str:
    """Return the name of an image, as the chart builds it."""
    values = images()
    return f"{values['registry']}/watchkeeper-{component}:{values['tag']}"


def images() -> dict[str, str]:
    """Return registry and tag from the values file of `make images`, or from WATCHKEEPER_IMAGES."""
    lines = (line.strip().split(": ") for line in IMAGES.read_text().splitlines()[1:])
    return {key: value.strip("\"'") for key, value in lines}


def _gateway_port(namespace: str) -> int:
    """Return the port of the installation's Gateway, or a free port if it has none."""
    gateways = items("gateways.gateway.networking.k8s.io", "--all-namespaces")
    used = {
        listener["port"]: gateway["metadata"]["namespace"]
        for gateway in gateways
        for listener in gateway["spec"]["listeners"]
    }
    own = [port for port, owner in used.items() if owner == namespace]
    return own[0] if own else secrets.choice([port for port in PORTS if port not in used])
