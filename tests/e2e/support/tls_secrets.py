"""Secrets with certificates of an authority of the tests, in both namespaces of an installation."""

from collections.abc import Iterable
from typing import Final

from installation import RELEASE, Installation
from kube import apply, secret
from trustme import CA

NAMES: Final = {
    "mlflow": "certificate-of-mlflow",
    "database": "certificate-of-postgresql",
    "servers": "certificate-of-servers",
}
HOSTS: Final = {
    "mlflow": f"{RELEASE}-mlflow",
    "database": f"{RELEASE}-postgresql",
    "servers": f"{RELEASE}-servers",
}


def put(installation: Installation, authority: CA, servers: Iterable[str] = NAMES) -> None:
    """Create or replace the Secrets of servers by new certificates of an authority."""
    ca = authority.cert_pem.bytes().decode()
    for server in servers:
        made = authority.issue_cert(f"{HOSTS[server]}.{installation.namespace}.svc")
        certificate = {
            "tls.crt": made.cert_chain_pems[0].bytes().decode(),
            "tls.key": made.private_key_pem.bytes().decode(),
            "ca.crt": ca,
        }
        apply(secret(installation.namespace, NAMES[server], certificate))
        if server != "servers":
            apply(secret(installation.training, NAMES[server], {"ca.crt": ca}))
