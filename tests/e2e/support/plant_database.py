"""The operational database of all plants, in a namespace of its own."""

import secrets

from declared_models import MODELS
from kube import Json, apply, kubectl, read_secret, secret, wait_until
from node_port import answers, expose_on_node, with_password
from sqlalchemy import URL

from watchkeeper.demo.plants import find

DATABASE = "operational"
SECRET, KEY = "postgresql", "database-password"


class PlantDatabase:
    """A PostgreSQL. ``inside`` is its URL for pods, ``outside`` its URL for this machine."""

    def __init__(self, namespace: str, image: str) -> None:
        """Start the database and store the history of every plant, unless it already exists."""
        password = read_secret(namespace, SECRET, KEY) or secrets.token_hex(16)
        apply(*_database(namespace, password, image))
        ready = ("deployment/postgresql", f"--namespace={namespace}", "--timeout=170s")
        kubectl("rollout", "status", *ready, seconds=180.0)
        host = f"postgresql.{namespace}.svc"
        url = URL.create("postgresql+psycopg", "watchkeeper", password, host, 5432, DATABASE)
        self.inside = with_password(url)
        outside = expose_on_node(url, namespace, "postgresql")
        wait_until("the database of the plants answers", lambda: answers(outside))
        self.outside = with_password(outside)
        for model in MODELS:
            find(model).seed(self.outside)


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
            {"name": "secrets", "secret": {"secretName": SECRET}},
        ],
    }
    template = {"metadata": {"labels": labels}, "spec": pod}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    ports = {"selector": labels, "ports": [{"port": 5432}]}
    return [
        secret(namespace, SECRET, {KEY: password}),
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec},
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": ports},
    ]
