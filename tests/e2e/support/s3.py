"""An S3 service in the cluster, versitygw, with one bucket."""

import secrets

from installation import Installation, image
from kube import Json, apply, get, items, kubectl, secret

SERVICE, PORT, BUCKET, KEY_ID = "s3", 7070, "tables", "plant"
SECURITY: Json = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


class S3:
    """The service, its keys, and its addresses for pods (``inside``) and this machine."""

    def __init__(self, installation: Installation) -> None:
        self.key = secrets.token_hex(16)
        _, training, namespace = installation.namespaces
        labels = {"app": SERVICE}
        pod: Json = {
            "automountServiceAccountToken": False,
            "securityContext": {"fsGroup": 65532},  # it owns the volume
            "initContainers": [
                _container(
                    "bucket",
                    image("cli"),
                    command=["python", "-c", f"import os; os.makedirs('/data/{BUCKET}')"],
                )
            ],
            "containers": [
                _container(
                    SERVICE,
                    _built_image(),
                    args=["--port", f":{PORT}", "posix", "/data"],
                    env=[
                        {"name": "ROOT_ACCESS_KEY", "value": KEY_ID},
                        {"name": "ROOT_SECRET_KEY", "value": self.key},
                    ],
                    readinessProbe={"tcpSocket": {"port": PORT}, "periodSeconds": 1},
                )
            ],
            "volumes": [{"name": "data", "emptyDir": {}}],
        }
        template = {"metadata": {"labels": labels}, "spec": pod}
        metadata = {"name": SERVICE, "namespace": namespace}
        apply(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": metadata,
                "spec": {"selector": {"matchLabels": labels}, "template": template},
            },
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": metadata,
                "spec": {"type": "NodePort", "selector": labels, "ports": [{"port": PORT}]},
            },
        )
        self.give_keys(training, self.key)
        self.give_keys(installation.namespace, self.key)
        where = (f"deployment/{SERVICE}", f"--namespace={namespace}", "--timeout=110s")
        kubectl("rollout", "status", *where, seconds=120.0)
        self.inside = f"http://{SERVICE}.{namespace}.svc:{PORT}"
        (port,) = get("service", SERVICE, f"--namespace={namespace}")["spec"]["ports"]
        addresses = items("nodes")[0]["status"]["addresses"]
        address = next(each["address"] for each in addresses if each["type"] == "InternalIP")
        self.outside = f"http://{address}:{port['nodePort']}"

    def give_keys(self, namespace: str, key: str) -> None:
        """Store the keys as a Secret for the chart."""
        apply(secret(namespace, BUCKET, {"access-key": KEY_ID, "secret-key": key}))

    def values(self) -> Json:
        """Return the values of the chart that name this store."""
        return {
            "url": f"s3://{BUCKET}/plant",
            "secretName": BUCKET,
            "endpoint": self.inside,
            "region": "us-east-1",
        }


def _container(name: str, reference: str, **more: object) -> Json:
    mounts = [{"name": "data", "mountPath": "/data"}]
    return {
        "name": name,
        "image": reference,
        "imagePullPolicy": "Never",
        "securityContext": SECURITY,
        "volumeMounts": mounts,
        **more,
    }


def _built_image() -> str:
    """Return the name of the image that `make cluster` has loaded."""
    found = items("nodes")[0]["status"]["images"]
    names = [name for each in found for name in each.get("names", [])]
    return next(name for name in names if "/versitygw:" in name)
