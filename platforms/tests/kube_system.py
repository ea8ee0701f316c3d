"""An installation on a real API server.

The ``as_...`` methods write what the chart and the controllers would write, which do not run here.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from api_server import POLICY, POLICY_BINDING, ApiServer

from watchkeeper.core.names import serving_name
from watchkeeper.platforms.kube import KubePlatform, api, platform
from watchkeeper.platforms.kube.labels import INSTANCE, PART_OF, VERSION, WATCHKEEPER
from watchkeeper.platforms.kube.labels import MODEL as MODEL_LABEL

Json = dict[str, Any]
MODEL = "pump-failure"
OTHER = "paint-quality"
ROLES = Path(platform.__file__).with_name("roles.yaml")
POLICY_FILE, LEASES_FILE = ROLES.with_name("policy.yaml"), ROLES.with_name("leases.yaml")
LIMITS_FILE = ROLES.with_name("limits.yaml")
RELEASE = "plant"
KINDS = (
    api.CONFIG_MAP,
    api.POD,
    api.DEPLOYMENT,
    api.CRON_JOB,
    api.JOB,
    api.LEASE,
    api.INFERENCE_SERVICE,
    api.GATEWAY,
    api.HTTP_ROUTE,
    api.BACKEND_TLS_POLICY,
    api.BACKEND_TRAFFIC_POLICY,
    api.SECURITY_POLICY,
    api.NETWORK_POLICY,
)
GATEWAY = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gateway"}


class KubeSystem:
    """One installation, in two namespaces of its own."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server
        self.namespace, self.training = server.make_namespace(), server.make_namespace()
        self.here = server.client("admin", self.namespace)
        self.there = server.client("admin", self.training)
        self._opened: list[KubePlatform] = []
        self.as_helm()
        self.allow()

    def open(self, user: str = "admin") -> KubePlatform:
        with self.server.environment(user):
            opened = KubePlatform(self.namespace, self.training)
        self._opened.append(opened)
        return opened

    def snapshot(self) -> dict[str, object]:
        """Return the resourceVersion of each object in the namespaces."""
        return {
            f"{kind.name} {found['metadata']['name']}": found["metadata"]["resourceVersion"]
            for client in (self.here, self.there)
            for kind in KINDS
            for found in client.list(kind)
        }

    def close(self) -> None:
        for opened in self._opened:
            opened.close()

    def allow(self) -> None:
        """Give each user the permissions of its component, and no others."""
        for role in yaml.safe_load_all(
            ROLES.read_text().replace("${MODEL}", MODEL).replace("${INSTALLATION}", "watchkeeper")
        ):
            place = {"system": self.namespace, "training": self.training}[role["namespace"]]
            self.server.allow(role["kind"], place, role["rules"])

    @contextlib.contextmanager
    def pinned(self) -> Iterator[None]:
        """Apply the admission policies for sidecars and rollout during a block."""
        with contextlib.ExitStack() as stack:
            for name, file in (
                (self.training, POLICY_FILE),
                (self.namespace, LEASES_FILE),
                (f"{self.namespace}.0", LIMITS_FILE),
            ):
                text = file.read_text()
                for variable, value in {
                    "NAME": name,
                    "MODEL": MODEL,
                    "MODELS": json.dumps([MODEL, OTHER]),
                    "TRAINING": self.training,
                    "NAMESPACE": self.namespace,
                    "SIDECAR": "sidecar",
                    "ROLLOUT": "rollout",
                    "INSTANCE": RELEASE,
                    "JOB": cel(job_template(MODEL)["spec"]),
                }.items():
                    text = text.replace(f"${{{variable}}}", value)
                for value in yaml.safe_load_all(text):
                    is_policy = value["kind"] == POLICY.name
                    kind = POLICY if is_policy else POLICY_BINDING
                    self.here.create(kind, value)
                    stack.callback(self.here.delete, kind, value["metadata"]["name"])
            yield

    def as_helm(self) -> None:
        installation = {
            "models": {
                name: {
                    "inferenceService": template(),
                    "hostnames": [name, f"{name}.example.com"],
                    "policies": policies(name),
                }
                for name in (MODEL, OTHER)
            },
            "instance": RELEASE,
            "gateway": GATEWAY,
            "retries": True,
            "endpoints": {
                "v2": "http://gateway",
                "mlflow": "http://mlflow:5000",
                "drift": "",
                "metrics": "",
                "ledger": "sqlite://",
                "hosts": {MODEL: MODEL, OTHER: OTHER},
            },
        }
        for name, data in (
            ("watchkeeper", {"installation.json": json.dumps(installation)}),
            ("watchkeeper-commands", {}),
        ):
            metadata = {"name": name, "labels": {PART_OF: WATCHKEEPER}}
            self.here.create(api.CONFIG_MAP, {"metadata": metadata, "data": data})
        for name in (MODEL, OTHER):
            spec = {"schedule": "0 0 1 1 *", "suspend": True, "jobTemplate": job_template(name)}
            metadata = {"name": f"{name}-training", "labels": {MODEL_LABEL: name}}
            self.there.create(api.CRON_JOB, {"metadata": metadata, "spec": spec})

    def as_helm_upgrade(self, change: Callable[[Json], None]) -> None:
        """Change the configuration of the installation."""
        found = self.here.get(api.CONFIG_MAP, "watchkeeper")
        installation = json.loads(found["data"]["installation.json"])
        change(installation)
        data = {"installation.json": json.dumps(installation)}
        self.here.replace(api.CONFIG_MAP, {**found, "data": data})

    def as_kserve(
        self, model: str, version: int, *, replicas: int = 1, available: int = 1, **status: Any
    ) -> None:
        """Write the Deployment of a version, and its status."""
        name = serving_name(model, version)
        service = self.here.get(api.INFERENCE_SERVICE, name)
        owner = {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "name": name,
            "uid": service["metadata"]["uid"],
            "controller": True,
        }
        labels = {**service["metadata"]["labels"], "app": name}
        self.here.apply(
            api.DEPLOYMENT,
            {
                "metadata": {
                    "name": f"{name}-predictor",
                    "labels": labels,
                    "ownerReferences": [owner],
                },
                "spec": {
                    "replicas": replicas,
                    "selector": {"matchLabels": {"app": name}},
                    "template": {"metadata": {"labels": labels}, "spec": pod_spec()},
                },
            },
        )
        made = self.here.get(api.DEPLOYMENT, f"{name}-predictor")
        said = {
            "observedGeneration": made["metadata"]["generation"],
            "replicas": replicas,
            "readyReplicas": available,
            "availableReplicas": available,
            **status,
        }
        self.here.patch(
            api.DEPLOYMENT, f"{name}-predictor", {"status": said}, subresource="/status"
        )

    def write_status(self, kind: api.Kind, name: str, status: Json, **changes: Any) -> None:
        """Replace the status of an object."""
        client = self.there if kind is api.JOB else self.here
        found = client.get(kind, name)
        client.replace(kind, {**found, "status": status, **changes}, subresource="/status")

    def as_gateway(self, model: str, **changes: Any) -> None:
        """Accept a model's route as it is now, in its status."""
        generation = self.here.get(api.HTTP_ROUTE, model)["metadata"]["generation"]
        conditions = [
            {
                "type": kind,
                "status": "True",
                "observedGeneration": generation,
                "reason": kind,
                "message": "",
                "lastTransitionTime": "2026-11-21T00:00:00Z",
                **changes,
            }
            for kind in ("Accepted", "ResolvedRefs")
        ]
        parent = {
            "parentRef": GATEWAY,
            "controllerName": "example.com/gateway",
            "conditions": conditions,
        }
        self.write_status(api.HTTP_ROUTE, model, {"parents": [parent]})

    def as_gateway_owner(self, **conditions: Json) -> None:
        """Create the Gateway, with a listener for each condition, which is its status."""
        names = list(conditions) or ["http"]
        listeners = [
            {"name": name, "port": 80 + port, "protocol": "HTTP"} for port, name in enumerate(names)
        ]
        spec = {"gatewayClassName": "envoy", "listeners": listeners}
        self.here.apply(api.GATEWAY, {"metadata": {"name": "gateway"}, "spec": spec})
        made = self.here.get(api.GATEWAY, "gateway")["metadata"]["generation"]
        statuses = [
            {
                "name": name,
                "attachedRoutes": 0,
                "supportedKinds": [],
                "conditions": [{**condition, "observedGeneration": made}],
            }
            for name, condition in conditions.items()
        ]
        self.write_status(api.GATEWAY, "gateway", {"listeners": statuses})

    def as_kubelet(self, model: str, version: int, **status: Any) -> None:
        """Write the pod of a version, and its status."""
        name = f"{serving_name(model, version)}-predictor-0"
        labels = {MODEL_LABEL: model, VERSION: str(version), PART_OF: WATCHKEEPER}
        self.here.apply(api.POD, {"metadata": {"name": name, "labels": labels}, "spec": pod_spec()})
        self.write_status(api.POD, name, {"phase": "Pending", **status})

    def as_garbage_collector(self, model: str, version: int) -> None:
        """Finish the deletion of a version: delete what it owns."""
        name = serving_name(model, version)
        with contextlib.suppress(Exception):
            self.here.delete(api.DEPLOYMENT, f"{name}-predictor")
        self.here.patch(
            api.INFERENCE_SERVICE,
            name,
            {"metadata": {"finalizers": None}},
        )

    def settle(self, model: str) -> None:
        """Write what all controllers would write for a model."""
        for service in self.here.list(api.INFERENCE_SERVICE, labels={MODEL_LABEL: model}):
            version = int(service["metadata"]["labels"][VERSION])
            if "deletionTimestamp" in service["metadata"]:
                self.as_garbage_collector(model, version)
            else:
                self.as_kserve(model, version)
        for route in self.here.list(api.HTTP_ROUTE):
            if route["metadata"]["name"] == model:
                self.as_gateway(model)


@contextlib.contextmanager
def installed(server: ApiServer) -> Iterator[KubeSystem]:
    """Return an installation for a block."""
    system = KubeSystem(server)
    try:
        yield system
    finally:
        system.close()


def template() -> Json:
    """The template of a model's InferenceServices in the values of the chart."""
    container = {"name": "drift", "image": "drift:1", "restartPolicy": "Always"}
    return {
        "metadata": {
            "annotations": {"example.com/team": "pumps"},
            "labels": {INSTANCE: RELEASE},
        },
        "spec": {
            "predictor": {
                "minReplicas": 1,
                "maxReplicas": 3,
                "serviceAccountName": "serving",
                "model": {
                    "modelFormat": {"name": "watchkeeper"},
                    "protocolVersion": "v2",
                    "runtime": "watchkeeper",
                    "env": [
                        {"name": "WATCHKEEPER_MODEL", "value": "${MODEL}"},
                        {"name": "WATCHKEEPER_VERSION", "value": "${VERSION}"},
                    ],
                },
                "initContainers": [
                    {**container, "env": [{"name": "NAME", "value": "${NAME} ${OTHER} $(X)"}]}
                ],
            }
        },
    }


def policies(model: str) -> list[Json]:
    """The policies of a model in the values of the chart."""
    return [
        {
            "kind": "SecurityPolicy",
            "metadata": {"name": f"{model}-clients"},
            "spec": {
                "targetRefs": [{**GATEWAY, "kind": "HTTPRoute", "name": model}],
                "apiKeyAuth": {
                    "credentialRefs": [{"name": "clients"}],
                    "extractFrom": [{"headers": ["x-api-key"]}],
                },
            },
        },
        {
            "kind": "NetworkPolicy",
            "metadata": {"name": f"{model}-server"},
            "spec": {
                "podSelector": {"matchLabels": {MODEL_LABEL: model}},
                "policyTypes": ["Ingress"],
                "ingress": [{"ports": [{"port": 8080}]}],
            },
        },
    ]


def job_template(model: str) -> Json:
    """The template of a model's training Jobs, with all defaults of the API server."""
    container = {
        "name": "training",
        "image": "training:1",
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-m", "watchkeeper.training"],
        "env": [{"name": "MLFLOW_TRACKING_URI", "value": "http://mlflow"}],
        "resources": {"requests": {"cpu": 0.5, "memory": "1024Mi"}, "limits": {}},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
    }
    pod = {
        "restartPolicy": "Never",
        "serviceAccountName": "training",
        "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "terminationGracePeriodSeconds": 30,
        "containers": [container],
    }
    labels = {"tier": "batch", PART_OF: WATCHKEEPER, MODEL_LABEL: model}
    return {
        "metadata": {"labels": labels},
        "spec": {
            "parallelism": 1,
            "completions": 1,
            "suspend": False,
            "backoffLimit": 3,
            "ttlSecondsAfterFinished": 86400,
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def cel(value: object) -> str:
    """Return a value as a CEL literal; ``dyn`` allows members of different types."""
    if isinstance(value, dict):
        members = (f"{json.dumps(key)}: {cel(member)}" for key, member in value.items())
        return f"dyn({{{', '.join(members)}}})"
    if isinstance(value, list):
        return f"dyn([{', '.join(map(cel, value))}])"
    return f"dyn({json.dumps(value, ensure_ascii=False)})"


def pod_spec() -> Json:
    return {"containers": [{"name": "kserve-container", "image": "serving:1"}]}
