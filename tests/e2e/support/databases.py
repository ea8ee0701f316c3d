"""Databases on the cluster, reached from outside by a port of the node's.

A port that kubectl forwards would end with each outage of the API server.
"""

from kube import apply, get, items
from sqlalchemy import URL, create_engine, text


def from_outside(url: URL, namespace: str, service: str) -> URL:
    """Return the URL of the same database by a port of the node's."""
    name = f"{service}-outside"
    selector = get("service", service, f"--namespace={namespace}")["spec"]["selector"]
    metadata = {"name": name, "namespace": namespace}
    spec = {"type": "NodePort", "selector": selector, "ports": [{"port": 5432}]}
    apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
    made = get("service", name, f"--namespace={namespace}")
    node = items("nodes")[0]["status"]["addresses"]
    address = next(one["address"] for one in node if one["type"] == "InternalIP")
    return url.set(host=address, port=made["spec"]["ports"][0]["nodePort"])


def answers(url: URL) -> bool:
    """Tell whether it can be asked; raises SQLAlchemyError too when it cannot."""
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            return connection.execute(text("SELECT 1")).scalar_one() == 1
    finally:
        engine.dispose()


def shown(url: URL) -> str:
    """Return the whole URL: where it goes, the password is needed."""
    return url.render_as_string(hide_password=False)
