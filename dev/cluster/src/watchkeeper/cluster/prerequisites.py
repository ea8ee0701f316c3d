"""Install what the product needs: DNS, volumes, Gateway API, Envoy Gateway and KServe.

Every step applies the wanted objects, so a second run restores what is missing.
"""

import base64
import hashlib
import json
import logging
import tempfile
from pathlib import Path

from watchkeeper.cluster import charts, storage
from watchkeeper.cluster.build import Built
from watchkeeper.cluster.certificates import Certificates
from watchkeeper.cluster.images import Image
from watchkeeper.cluster.kubernetes import Kubernetes, Object
from watchkeeper.cluster.layout import Layout

log = logging.getLogger(__name__)

MANIFESTS = Path(__file__).parent / "manifests"
ENVOY_GATEWAY = "envoy-gateway-system"
KSERVE = "kserve"


class Prerequisites:
    """Installs the prerequisites in the order of their dependencies."""

    def __init__(
        self,
        layout: Layout,
        kubernetes: Kubernetes,
        builds: dict[str, Built],
        images: dict[str, Image],
        node: str,
    ) -> None:
        self._layout = layout
        self._kubernetes = kubernetes
        self._builds = builds
        self._images = images
        self._node = node
        self._helm = builds["helm"].program("helm")

    def install(self) -> None:
        """Install everything and wait until it works."""
        self._dns()
        storage.install(self._layout, self._kubernetes)
        self._definitions()
        self._namespaces()
        self._envoy_gateway()
        self._kserve()
        self._kubernetes.available("kube-system", "coredns")
        self._kubernetes.available(ENVOY_GATEWAY, "envoy-gateway")
        self._kubernetes.wait("the GatewayClass envoy is accepted", self._class_is_accepted)
        self._kubernetes.available(KSERVE, "kserve-controller-manager")
        self._kubernetes.wait("KServe's webhook answers", self._webhook_answers)

    def _dns(self) -> None:
        text = (MANIFESTS / "dns.yaml").read_text()
        objects = charts.documents(text)
        for one in objects:
            if one["kind"] == "Deployment":
                template = one["spec"]["template"]
                template["spec"]["containers"][0]["image"] = self._images["coredns"].reference
                # changed settings must change the pod, because CoreDNS does not read them again
                made_from = hashlib.sha256(text.encode()).hexdigest()[:12]
                template["metadata"]["annotations"] = {"watchkeeper/made-from": made_from}
        self._kubernetes.apply(objects)

    def _namespaces(self) -> None:
        self._kubernetes.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            for name in (ENVOY_GATEWAY, KSERVE)
        )

    def _definitions(self) -> None:
        """Apply the CRDs, and wait until the API server serves them."""
        kserve = self._builds["kserve"]
        standard = kserve.module("sigs.k8s.io/gateway-api", "config/crd/standard")
        files = kserve.module("github.com/kserve/kserve", f"install/{kserve.version}")
        self._kubernetes.apply_files(standard, files / "kserve-crds.yaml")
        chart = self._builds["envoy-gateway"].module(
            "github.com/envoyproxy/gateway", "charts/gateway-crds-helm"
        )
        on = {"crds": {"gatewayAPI": {"enabled": False}, "envoyGateway": {"enabled": True}}}
        self._kubernetes.apply(charts.render(self._helm, chart, "default", on))
        self._kubernetes.kubectl(
            "wait", "--for=condition=Established", "--all", "crd", "--timeout=60s", seconds=90
        )

    def _envoy_gateway(self) -> None:
        image = self._images["envoy-gateway"].reference
        values: Object = {
            "config": {
                "envoyGateway": {
                    "provider": {
                        "type": "Kubernetes",
                        "kubernetes": {"shutdownManager": {"image": image}},
                    }
                }
            },
            "topologyInjector": {"enabled": False},
        }
        chart = self._builds["envoy-gateway"].module(
            "github.com/envoyproxy/gateway", "charts/gateway-helm"
        )
        filled = {"GatewayImage": image, "GatewayImagePullPolicy": "IfNotPresent"}
        with tempfile.TemporaryDirectory() as folder:
            whole = charts.completed(chart, Path(folder) / chart.name, filled)
            objects = charts.render(self._helm, whole, ENVOY_GATEWAY, values)
        for one in objects:
            # these annotations are Helm hooks, and Helm does not install the objects
            one["metadata"].pop("annotations", None)
        self._kubernetes.apply(objects)
        self._kubernetes.apply(self._gateway_class())

    def _gateway_class(self) -> list[Object]:
        objects = charts.documents((MANIFESTS / "gateway.yaml").read_text())
        proxy = objects[0]["spec"]["provider"]["kubernetes"]
        proxy["envoyDeployment"]["container"]["image"] = self._images["envoy"].reference
        proxy["envoyService"]["patch"]["value"]["spec"]["externalIPs"] = [self._node]
        return objects

    def _kserve(self) -> None:
        certificates = Certificates(self._layout)
        repository, tag = self._images["kserve"].reference.rsplit(":", 1)
        controller = {
            "deploymentMode": "Standard",
            "image": repository,
            "tag": tag,
            "imagePullPolicy": "IfNotPresent",
            "gateway": {
                "disableIstioVirtualHost": True,
                "ingressGateway": {"enableGatewayApi": True, "className": "envoy"},
            },
            "resources": {
                "requests": {"cpu": "50m", "memory": "128Mi"},
                "limits": {"cpu": "1", "memory": "512Mi"},
            },
        }
        chart = self._builds["kserve"].module("github.com/kserve/kserve", "charts/kserve-resources")
        objects = charts.render(self._helm, chart, KSERVE, {"kserve": {"controller": controller}})
        objects = charts.without_cert_manager(objects, certificates.authority.read_bytes())
        objects = charts.without_container(objects, "kube-rbac-proxy")
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "kserve-webhook-server-cert", "namespace": KSERVE},
            "type": "kubernetes.io/tls",
            "data": {
                "tls.crt": _encoded(certificates.certificate("kserve-webhook")),
                "tls.key": _encoded(certificates.key("kserve-webhook")),
            },
        }
        self._kubernetes.apply([secret, *objects])

    def _class_is_accepted(self) -> bool:
        found = self._kubernetes.get("gatewayclass/envoy") or {}
        conditions = found.get("status", {}).get("conditions", [])
        return any(one["type"] == "Accepted" and one["status"] == "True" for one in conditions)

    def _webhook_answers(self) -> bool:
        """Send an InferenceService to the webhook as a dry run."""
        probe = {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": "probe", "namespace": "default"},
            "spec": {"predictor": {"containers": [{"name": "kserve-container", "image": "probe"}]}},
        }
        words = ("create", "--dry-run=server", "--filename", "-")
        self._kubernetes.kubectl(*words, given=json.dumps(probe))
        return True


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
