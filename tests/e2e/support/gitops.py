"""An installation as a GitOps tool makes it: rendered without the cluster, applied without Helm."""

import json
import secrets
import threading
from types import TracebackType
from typing import Any

import yaml
from installation import IMAGES, RELEASE, RESTRICTED, Installation, image
from kube import CommandError, Json, apply, helm, kubectl, read_secret, secret
from node_port import with_password
from plant_database import PlantDatabase
from sqlalchemy import create_engine, make_url

from watchkeeper.ledger import Ledger

FIELD_MANAGER = "argocd-controller"
HOOK = "helm.sh/hook"
STORES = "stores"


class SyncedInstallation(Installation):
    """An installation with Secrets and databases of its own, which :meth:`sync` applies."""

    def values(self) -> Json:
        values = super().values()
        egress = {**values["networkPolicies"], "ledger": [{"ports": [{"port": 5432}]}]}
        return {
            **values,
            "postgresql": {"enabled": False},
            "secrets": {"existing": STORES, "existingTraining": STORES},
            "gateway": {**values["gateway"], "createTokenSecret": False},
            "networkPolicies": egress,
        }

    def _start(self) -> None:
        for name in self.namespaces:
            metadata = {"name": name, "labels": RESTRICTED}
            apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        self.plant = PlantDatabase(self.namespaces[2], image("postgresql"))
        apply(secret(self.training, "plant", {"url": self.plant.inside}))
        self._create_databases()
        self._create_secrets()
        self.install()
        self.ledger = Ledger(with_password(make_url(self.plant.outside).set(database="ledger")))
        self._started = True

    def install(self, **values: Any) -> None:
        """Run the hooks that come before, then apply everything else."""
        self._values = {**self.values(), **values}
        for each in self._hooks():
            place = f"--namespace={each['metadata']['namespace']}"
            job = f"job/{each['metadata']['name']}"
            kubectl("delete", job, place, "--ignore-not-found")
            _apply([each])
            kubectl("wait", job, place, "--for=condition=Complete", "--timeout=290s", seconds=300.0)
        self.sync()
        for component in ("mlflow", "rollout", "cli"):
            place = (f"deployment/{RELEASE}-{component}", f"--namespace={self.namespace}")
            kubectl("rollout", "status", *place, "--timeout=290s", seconds=300.0)

    def sync(self) -> None:
        """Render the chart, and apply all objects that are no hooks."""
        _apply([each for each in self.rendered() if HOOK not in _annotations(each)])

    def rendered(self) -> list[Json]:
        """Return all objects of the chart, rendered without the cluster."""
        file = self.folder / "values.json"
        file.write_text(json.dumps(self._values))
        text = helm(
            *("template", RELEASE, str(self.chart), f"--namespace={self.namespace}"),
            *(f"--values={IMAGES}", f"--values={file}"),
        )
        return [each for each in yaml.load_all(text, yaml.CSafeLoader) if each]

    def _hooks(self) -> list[Json]:
        """Return the Jobs that run before anything is applied, in order."""
        found = [
            each
            for each in self.rendered()
            if {"pre-install", "pre-upgrade"} & {*_annotations(each).get(HOOK, "").split(",")}
        ]
        return sorted(found, key=lambda hook: int(_annotations(hook)[f"{HOOK}-weight"]))

    def _create_databases(self) -> None:
        engine = create_engine(self.plant.outside, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            for name in ("ledger", "mlflow"):
                connection.exec_driver_sql(f"CREATE DATABASE {name}")
        engine.dispose()

    def _create_secrets(self) -> None:
        """Create the Secrets that docs/how-to/install.md names."""
        owner = make_url(self.plant.inside)

        def ledger(user: str) -> str:
            url = owner.set(username=user, password=secrets.token_hex(16), database="ledger")
            return with_password(url)

        reader, training = ledger("ledger-reader"), secrets.token_hex(16)
        stores = {
            "signing-key": secrets.token_hex(16),
            "feedback-token": secrets.token_hex(16),
            "ledger-url": with_password(owner.set(database="ledger")),
            "ledger-writer-url": ledger("ledger-writer"),
            "ledger-reader-url": reader,
            "mlflow-url": with_password(owner.set(database="mlflow")),
            "mlflow-password": secrets.token_hex(16),
            "mlflow-serving-password": secrets.token_hex(16),
            "mlflow-training-password": training,
        }
        token = {"credential": secrets.token_hex(16)}
        apply(
            secret(self.namespace, STORES, stores),
            secret(self.namespace, f"{RELEASE}-gateway", token),
            secret(
                self.training,
                STORES,
                {"mlflow-training-password": training, "ledger-reader-url": reader},
            ),
        )

    def secret(self, key: str) -> str:
        """Return a value of the Secret."""
        return read_secret(self.namespace, STORES, key)


class Syncing:
    """Applies the manifests again and again while a block runs.

    Attributes:
        count: how often they were applied.
    """

    def __init__(self, installation: SyncedInstallation) -> None:
        self.count = 0
        self._installation = installation
        self._error: CommandError | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Syncing":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._thread.join()
        if self._error is not None:
            raise self._error from error

    def _run(self) -> None:
        while not self._stopped.is_set() and self._error is None:
            try:
                self._installation.sync()
            except CommandError as error:
                self._error = error
            self.count += 1


def _apply(objects: list[Json]) -> None:
    given = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    options = ("--server-side", "--force-conflicts", f"--field-manager={FIELD_MANAGER}")
    kubectl("apply", *options, "--filename=-", given=given, seconds=120.0)


def _annotations(found: Json) -> dict[str, str]:
    annotations: dict[str, str] = found["metadata"].get("annotations") or {}
    return annotations
