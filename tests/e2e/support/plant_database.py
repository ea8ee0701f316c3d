"""The operational database of all plants, in a namespace of its own."""

import secrets

import yaml
from declared_models import MODELS
from kube import ROOT, Json, apply, kubectl, read_secret, secret, wait_until
from node_port import answers, expose_on_node, with_password
from sqlalchemy import URL

from watchkeeper.demo.plants import find

MANIFEST = ROOT / "manifests/trial-database.yaml"
USER, DATABASE = "watchkeeper", "plant"
SECRET, KEY = "postgresql", "database-password"


class PlantDatabase:
    """A PostgreSQL. ``inside`` is its URL for pods, ``outside`` its URL for this machine."""

    def __init__(self, namespace: str, image: str) -> None:
        """Start the database and store the history of every plant, unless it already exists."""
        password = read_secret(namespace, SECRET, KEY) or secrets.token_hex(16)
        apply(secret(namespace, SECRET, {KEY: password}), *_objects(namespace, image))
        ready = ("deployment/postgresql", f"--namespace={namespace}", "--timeout=170s")
        kubectl("rollout", "status", *ready, seconds=180.0)
        host = f"postgresql.{namespace}.svc"
        url = URL.create("postgresql+psycopg", USER, password, host, 5432, DATABASE)
        self.inside = with_password(url)
        outside = expose_on_node(url, namespace, "postgresql")
        wait_until("the database of the plants answers", lambda: answers(outside))
        self.outside = with_password(outside)
        for model in MODELS:
            find(model).seed(self.outside)


def _objects(namespace: str, image: str) -> list[Json]:
    """Return the objects of the manifest with this image, in this namespace."""
    objects: list[Json] = list(yaml.safe_load_all(MANIFEST.read_text()))
    for each in objects:
        each["metadata"]["namespace"] = namespace
        if each["kind"] == "Deployment":
            (container,) = each["spec"]["template"]["spec"]["containers"]
            container["image"] = image
    return objects
