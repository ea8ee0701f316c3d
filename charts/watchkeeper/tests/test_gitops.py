"""GitOps tools render the chart without a cluster: with Secrets of one's own nothing is missing."""

import json
import shutil

import pytest
from rendering import CHART, MODELS, Json, helm, installed, rendered

VALUES: Json = {
    "models": MODELS,
    "secrets": {"existing": "mine", "existingTraining": "theirs"},
    "gateway": {"createTokenSecret": False},
    "training": {"createNamespace": False},
}
HOOK = "helm.sh/hook"

pytestmark = pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not on PATH")


def by_name(objects: list[Json]) -> dict[tuple[str, str, str], Json]:
    """Return objects by kind, namespace and name, without what makes a volume a hook."""
    for each in objects:
        if each["kind"] == "PersistentVolumeClaim":
            annotations = each["metadata"]["annotations"]
            each["metadata"]["annotations"] = {
                key: value for key, value in annotations.items() if not key.startswith(HOOK)
            }
    return {
        (each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]): each
        for each in objects
    }


def test_helm_template_renders_all_that_helm_install_creates(namespace: str) -> None:
    expected = by_name(installed(VALUES, namespace))
    assert len(expected) > 20
    assert by_name(rendered(VALUES, namespace=namespace)) == expected


def test_repeated_rendering_gives_the_same_objects_and_no_secret() -> None:
    words = ("template", "watchkeeper", str(CHART), "--values=-")
    first, second = (helm(*words, given=json.dumps(VALUES)) for _ in range(2))
    assert (first.returncode, first.stdout) == (0, second.stdout)
    assert "kind: Secret\n" not in first.stdout
