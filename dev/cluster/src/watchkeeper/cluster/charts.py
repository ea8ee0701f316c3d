"""Render the charts of the Go modules with helm and adapt them to this cluster."""

import base64
import json
import shutil
import tempfile
from pathlib import Path
from string import Template

import yaml

from watchkeeper.cluster.commands import run
from watchkeeper.cluster.kubernetes import Object
from watchkeeper.cluster.layout import ClusterError

HELM_SECONDS = 120.0


def documents(text: str) -> list[Object]:
    """Return the objects of a text with YAML documents."""
    return [one for one in yaml.load_all(text, Loader=yaml.CSafeLoader) if one]


def render(helm: Path, chart: Path, namespace: str, values: Object) -> list[Object]:
    """Return the objects of a chart with ``values``, each in a namespace where it has one."""
    with tempfile.TemporaryDirectory() as home:
        private = {f"HELM_{name}_HOME": home for name in ("CACHE", "CONFIG", "DATA")}
        rendered = run(
            [helm, "template", chart.name, chart, "--namespace", namespace, "--values", "-"],
            given=json.dumps(values),
            seconds=HELM_SECONDS,
            environment=private,
        )
    return documents(rendered)


def completed(chart: Path, target: Path, values: dict[str, str]) -> Path:
    """Return a copy of Envoy Gateway's chart, with the values that its release process fills in."""
    shutil.copytree(chart, target)
    template = Template((chart / "values.tmpl.yaml").read_text())
    (target / "values.yaml").write_text(template.substitute(values))
    # another chart installs the CRDs
    shutil.rmtree(target / "charts")
    (target / "Chart.lock").unlink()
    about = yaml.safe_load((chart / "Chart.yaml").read_text())
    del about["dependencies"]
    (target / "Chart.yaml").write_text(yaml.safe_dump(about))
    return target


def without_cert_manager(objects: list[Object], authority: bytes) -> list[Object]:
    """Return KServe's objects for a webhook whose certificate ``authority`` signed."""
    kept = [one for one in objects if not one["apiVersion"].startswith("cert-manager.io/")]
    for one in kept:
        if one["kind"].endswith("WebhookConfiguration"):
            one["metadata"].get("annotations", {}).pop("cert-manager.io/inject-ca-from", None)
            for webhook in one["webhooks"]:
                webhook["clientConfig"]["caBundle"] = base64.b64encode(authority).decode()
    return kept


def without_container(objects: list[Object], name: str) -> list[Object]:
    """Return ``objects`` with a container of that name taken out of every Deployment.

    Raises:
        ClusterError: no Deployment has it, so the chart is not the one this was written for.
    """
    found = False
    for one in objects:
        if one["kind"] == "Deployment":
            pod = one["spec"]["template"]["spec"]
            others = [container for container in pod["containers"] if container["name"] != name]
            found = found or len(others) < len(pod["containers"])
            pod["containers"] = others
    if not found:
        raise ClusterError(f"KServe's chart has no container {name}")
    return objects
