"""The plants' operational database, in a namespace of its own: none of the installation's parts."""

import secrets

from databases import answers, from_outside, shown
from kube import Json, apply, kubectl, secret, secret_of, until
from sqlalchemy import URL

from watchkeeper.demo.worlds import WORLDS, find

DATABASE = "operational"
SECRET, KEY = "postgresql", "database-password"


class Plant:
    """``inside`` is the database's URL for pods, ``outside`` that for this machine."""

    def __init__(self, namespace: str, image: str) -> None:
        """Start it, and store the past of every world; one that is there is taken as it is."""
        password = secret(namespace, SECRET, KEY) or secrets.token_hex(16)
        apply(*_database(namespace, password, image))
        ready = ("deployment/postgresql", f"--namespace={namespace}", "--timeout=170s")
        kubectl("rollout", "status", *ready, seconds=180.0)
        host = f"postgresql.{namespace}.svc"
        url = URL.create("postgresql+psycopg", "watchkeeper", password, host, 5432, DATABASE)
        self.inside = shown(url)
        outside = from_outside(url, namespace, "postgresql")
        until("the plants' database answers", lambda: answers(outside))
        self.outside = shown(outside)
        for model in WORLDS:
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
        secret_of(namespace, SECRET, {KEY: password}),
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec},
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": ports},
    ]
