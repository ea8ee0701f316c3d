"""Rendering the chart for tests."""

import copy
import functools
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import Any

import yaml
from cluster import KUBECONFIG, Json

CHART = Path(__file__).parents[1]
MODEL, OTHER = "pump-failure", "valve-leak"
MODELS: Json = {MODEL: {"source": {"secretName": "plant"}}, OTHER: {}}

COMPONENTS = ("postgresql", "mlflow", "training", "rollout", "cli", "serving")
SCHEDULING: Json = {
    "nodeSelector": {"pool": "models"},
    "tolerations": [
        {"key": "models", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "spot", "value": "yes", "effect": "NoExecute", "tolerationSeconds": 300},
    ],
    "affinity": {
        "nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {
                    "weight": 10,
                    "preference": {
                        "matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]
                    },
                }
            ]
        }
    },
    "priorityClassName": "system-cluster-critical",
    "podAnnotations": {"example.com/team": "pumps, valves & <others>"},
    "extraEnv": [
        {"name": "HTTPS_PROXY", "value": "http://proxy.example.com:3128"},
        {"name": "NO_PROXY", "value": ""},
        {"name": "PROXY_TOKEN", "valueFrom": {"secretKeyRef": {"name": "proxy", "key": "token"}}},
    ],
}


def helm(*arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run helm, with ``given`` as standard input."""
    return subprocess.run(
        ["helm", *arguments], input=given, capture_output=True, text=True, check=False
    )


def rendered(
    values: Json, *options: str, release: str = "watchkeeper", namespace: str = "plant"
) -> list[Json]:
    """Return the objects of a release, those of hooks too.

    Equal arguments give copies of the same objects: many tests look at the same release.

    Args:
        values: the chart's values; ``models`` are MODELS if not given.
        options: further options of `helm template`.
    """
    given = json.dumps({"models": MODELS, **values})
    return copy.deepcopy(_template(given, release, f"--namespace={namespace}", *options))


@functools.cache
def _template(given: str, release: str, *options: str) -> list[Json]:
    done = helm("template", release, str(CHART), "--values=-", *options, given=given)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.load_all(done.stdout, yaml.CSafeLoader) if each]


def dry_install(values: Json, namespace: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `helm install` without creating anything; it reads from the cluster."""
    return subprocess.run(
        [
            *("helm", "install", "watchkeeper", str(CHART), f"--namespace={namespace}"),
            *("--values=-", "--dry-run=server", *words),
        ],
        input=json.dumps(values),
        env={**os.environ, "KUBECONFIG": KUBECONFIG},
        capture_output=True,
        text=True,
        check=False,
    )


def installed(values: Json, namespace: str) -> list[Json]:
    """Return the objects that `helm install` would create."""
    done = dry_install(values, namespace, "--hide-notes")
    assert done.returncode == 0, done.stderr
    _, _, text = done.stdout.partition("HOOKS:")
    documents = text.replace("\nMANIFEST:\n", "\n---\n")
    return [each for each in yaml.load_all(documents, yaml.CSafeLoader) if each]


def only(objects: list[Json], kind: str, name: str) -> Json:
    """Return the object of a kind and name."""
    (found,) = (e for e in objects if (e["kind"], e["metadata"]["name"]) == (kind, name))
    return found


def inference_services(objects: list[Json], namespace: str) -> list[Json]:
    """Return the InferenceService of version 1 of each model, as rollout makes it."""
    services = []
    for model, settings in _models(objects).items():
        template = Template(json.dumps(settings["inferenceService"]))
        service = json.loads(template.substitute(MODEL=model, VERSION="1", NAME=f"{model}-v1"))
        service |= {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService"}
        service["metadata"] |= {"name": f"{model}-v1", "namespace": namespace}
        annotations = service["metadata"].setdefault("annotations", {})
        annotations["serving.kserve.io/deploymentMode"] = "Standard"
        service["spec"]["predictor"]["model"]["storageUri"] = f"mlflow://{model}/1"
        services.append(service)
    return services


def policies(objects: list[Json], namespace: str) -> list[Json]:
    """Return the policies of all models, as rollout makes them."""
    versions = {
        "SecurityPolicy": "gateway.envoyproxy.io/v1alpha1",
        "NetworkPolicy": "networking.k8s.io/v1",
        "BackendTLSPolicy": "gateway.networking.k8s.io/v1",
    }
    return [
        {
            **policy,
            "apiVersion": versions[policy["kind"]],
            "metadata": {**policy["metadata"], "namespace": namespace},
            "spec": {**policy["spec"], **_targets(policy["kind"], model)},
        }
        for model, settings in _models(objects).items()
        for policy in settings["policies"]
    ]


def _targets(kind: str, model: str) -> Json:
    """Return what rollout adds to the spec of a policy: the servers with a certificate."""
    if kind != "BackendTLSPolicy":
        return {}
    return {"targetRefs": [{"group": "", "kind": "Service", "name": f"{model}-v1-predictor"}]}


def _models(objects: list[Json]) -> Json:
    """Return the models in the configuration of the installation."""
    (text,) = (
        each["data"]["installation.json"]
        for each in objects
        if each["kind"] == "ConfigMap" and "installation.json" in each.get("data", {})
    )
    models: Json = json.loads(text)["models"]
    return models


def pods(objects: list[Json]) -> Iterator[tuple[str, Json]]:
    """Return the pod of every workload, with metadata and spec, by its component."""
    for each in objects:
        spec = each.get("spec", {})
        pod = None
        match each["kind"]:
            case "Pod":
                pod = each
            case "Deployment" | "StatefulSet" | "Job":
                pod = spec["template"]
            case "CronJob":
                pod = spec["jobTemplate"]["spec"]["template"]
            case "InferenceService":
                labels = each["metadata"]["labels"]
                annotations = spec["predictor"].get("annotations", {})
                metadata = {"labels": labels, "annotations": annotations}
                pod = {"metadata": metadata, "spec": spec["predictor"]}
        if pod is not None:
            yield pod["metadata"]["labels"]["app.kubernetes.io/component"], pod


def containers(node: Any) -> Iterator[tuple[Json, list[Json]]]:
    """Return every container of an object, with the volumes of its pod."""
    if isinstance(node, list):
        for each in node:
            yield from containers(each)
    elif isinstance(node, dict):
        for key in ("containers", "initContainers"):
            for each in node.get(key, []):
                yield each, node.get("volumes", [])
        if "image" in node.get("container", {}):  # a ClusterStorageContainer
            yield node["container"], []
        for value in node.values():
            yield from containers(value)
