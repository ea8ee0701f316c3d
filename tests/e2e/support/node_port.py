"""Access to databases in the cluster through a port of the node.

A port that `kubectl port-forward` opens would close with each outage of the API server.
"""

from kube import apply, get, items
from sqlalchemy import URL, create_engine, text


def expose_on_node(url: URL, namespace: str, service: str) -> URL:
    """Open a port of the node to the database of a Service, and return the URL with that port."""
    name = f"{service}-outside"
    selector = get("service", service, f"--namespace={namespace}")["spec"]["selector"]
    metadata = {"name": name, "namespace": namespace}
    spec = {"type": "NodePort", "selector": selector, "ports": [{"port": 5432}]}
    apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
    made = get("service", name, f"--namespace={namespace}")
    addresses = items("nodes")[0]["status"]["addresses"]
    address = next(each["address"] for each in addresses if each["type"] == "InternalIP")
    return url.set(host=address, port=made["spec"]["ports"][0]["nodePort"])


def answers(url: URL) -> bool:
    """Return True if the database answers.

    Raises:
        SQLAlchemyError: it does not answer.
    """
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            return connection.execute(text("SELECT 1")).scalar_one() == 1
    finally:
        engine.dispose()


def with_password(url: URL) -> str:
    """Return the URL as text, with the password that ``str`` hides."""
    return url.render_as_string(hide_password=False)
