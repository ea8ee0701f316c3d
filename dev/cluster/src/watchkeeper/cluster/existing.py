"""Check what an existing cluster lacks. Nothing is changed."""

import os
import re
import shutil
from typing import Any

import msgspec

from watchkeeper.cluster.commands import run
from watchkeeper.cluster.layout import ClusterError

# What the API server must serve, and what provides it.
SERVED = {
    "validatingadmissionpolicies.admissionregistration.k8s.io": "Kubernetes 1.30 or newer",
    "inferenceservices.serving.kserve.io": "KServe 0.20 or newer",
    "clusterstoragecontainers.serving.kserve.io": "KServe 0.20 or newer",
    "httproutes.gateway.networking.k8s.io": "the Gateway API's standard CRDs",
}
RETRIES = "backendtrafficpolicies.gateway.envoyproxy.io"
KSERVE = (0, 20)
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
DEFAULT_GATEWAY = "envoy"  # the chart's gateway.className


class Found(msgspec.Struct, frozen=True):
    """What a cluster contains; ``kserve`` are images, ``settings`` KServe's ingress settings."""

    served: frozenset[str]
    kserve: list[str] = []
    settings: list[dict[str, Any]] = []
    gateway_classes: list[str] = []
    default_storage: bool = False


def look() -> Found:
    """Query the cluster that KUBECONFIG names.

    Raises:
        ClusterError: the cluster does not answer, or a program for the query is missing.
    """
    for program in ("kubectl", "helm"):
        if shutil.which(program) is None:
            raise ClusterError(f"KUBECONFIG names a cluster, but {program} is not on the PATH")
    served = _kubectl("api-resources", "--output=name").split()
    everywhere = ("--all-namespaces", "--field-selector")
    controllers = _items("deployments", *everywhere, "metadata.name=kserve-controller-manager")
    settings = _items("configmaps", *everywhere, "metadata.name=inferenceservice-config")
    classes = (
        _items("gatewayclasses") if "gatewayclasses.gateway.networking.k8s.io" in served else []
    )
    return Found(
        served=frozenset(served),
        kserve=[
            container["image"]
            for one in controllers
            for container in one["spec"]["template"]["spec"]["containers"]
        ],
        settings=[msgspec.json.decode(one["data"].get("ingress", "{}")) for one in settings],
        gateway_classes=[one["metadata"]["name"] for one in classes if _accepted(one)],
        default_storage=any(
            one["metadata"].get("annotations", {}).get(DEFAULT_CLASS) == "true"
            for one in _items("storageclasses")
        ),
    )


def missing(found: Found) -> list[str]:
    """Return what is required and missing."""
    lacking = [f"{brings}: {name} is not served" for name, brings in SERVED.items()
               if name not in found.served]  # fmt: skip
    if not found.kserve:
        lacking.append("KServe's controller: there is no Deployment kserve-controller-manager")
    for image in found.kserve:
        version = re.search(r":v(\d+)\.(\d+)", image)
        if version and (int(version[1]), int(version[2])) < KSERVE:
            lacking.append(f"KServe 0.20 or newer: its controller is {image}")
    if not any(one.get("enableGatewayApi") is True for one in found.settings):
        lacking.append(
            "KServe's setting ingress.enableGatewayApi (ConfigMap inferenceservice-config)"
        )
    if not found.gateway_classes:
        lacking.append("an implementation of the Gateway API: no GatewayClass is accepted")
    return lacking


def remarks(found: Found) -> list[str]:
    """Return what is optional and missing, with the chart value that avoids it."""
    made = []
    if found.gateway_classes and DEFAULT_GATEWAY not in found.gateway_classes:
        made.append(
            f"no GatewayClass {DEFAULT_GATEWAY}: name one in gateway.className, of "
            + ", ".join(found.gateway_classes)
        )
    if RETRIES not in found.served:
        made.append("no Envoy Gateway: install with gateway.retries=false, without API keys or JWT")
    if not found.default_storage:
        made.append(
            "no default StorageClass: name one in postgresql.storage.className and"
            " mlflow.artifacts.className"
        )
    return made


def check(kubeconfig: str) -> str:
    """Return a message that the cluster has everything.

    Raises:
        ClusterError: it has not; all that is missing is named.
    """
    found = look()
    if lacking := missing(found):
        problems = "\n  ".join([*lacking, *remarks(found)])
        raise ClusterError(
            f"the cluster of KUBECONFIG={kubeconfig} lacks:\n  {problems}\n"
            "docs/how-to/install.md shows how to install it. Without KUBECONFIG, make cluster "
            "starts a cluster of its own"
        )
    return "\n".join(
        [f"the cluster of KUBECONFIG={kubeconfig} has what is needed", *remarks(found)]
    )


def _accepted(gateway_class: dict[str, Any]) -> bool:
    conditions = gateway_class.get("status", {}).get("conditions", [])
    return any(one["type"] == "Accepted" and one["status"] == "True" for one in conditions)


def _items(*words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = msgspec.json.decode(_kubectl("get", *words, "--output=json"))[
        "items"
    ]
    return found


def _kubectl(*words: str) -> str:
    # Keep the proxies of the shell: that cluster may be remote.
    return run(["kubectl", "--request-timeout=20s", *words], environment=dict(os.environ))
