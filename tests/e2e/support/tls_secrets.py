"""Secrets with certificates of an authority of the tests, in both namespaces of an installation."""

from installation import RELEASE, Installation
from kube import apply, secret
from trustme import CA

NAMES = {"mlflow": "certificate-of-mlflow", "database": "certificate-of-postgresql"}
HOSTS = {"mlflow": f"{RELEASE}-mlflow", "database": f"{RELEASE}-postgresql"}


def put(installation: Installation) -> None:
    """Create or replace the Secrets by those of a new authority."""
    authority = CA()
    ca = authority.cert_pem.bytes().decode()
    for server, name in NAMES.items():
        made = authority.issue_cert(f"{HOSTS[server]}.{installation.namespace}.svc")
        certificate = {
            "tls.crt": made.cert_chain_pems[0].bytes().decode(),
            "tls.key": made.private_key_pem.bytes().decode(),
            "ca.crt": ca,
        }
        apply(
            secret(installation.namespace, name, certificate),
            secret(installation.training, name, {"ca.crt": ca}),
        )
