"""What manifests/README.md says, done word for word: without Helm, in the namespaces it names."""

import re
import subprocess
from collections.abc import Iterator

import pytest
from installation import image, images
from kube import ENVIRONMENT, ROOT, get, kubectl
from plant import Plant

README = ROOT / "manifests/README.md"
NAMESPACES = ("watchkeeper", "watchkeeper-training")
PLANT = "watchkeeper-plant"
SECONDS = 900.0
ASK = "GATEWAY="  # begins the first block that asks a model
# It says to wait for versions in production before that.
UNTIL_BOTH_SERVE = """
until kubectl exec -n watchkeeper deploy/watchkeeper-cli -- watchkeeper status --json | python3 -c '
import json, sys
sys.exit(any(model["production"] is None for model in json.load(sys.stdin)["models"]))'
do sleep 1; done
"""


@pytest.fixture
def source() -> Iterator[str]:
    """The URL of an operational database, as pods see it."""
    if any(get("namespace", name) for name in NAMESPACES):
        pytest.skip(f"there is something in {' or '.join(NAMESPACES)}")
    kubectl("create", "namespace", PLANT)
    try:
        yield Plant(PLANT, image("postgresql")).inside
    finally:
        left = (*NAMESPACES, PLANT)
        kubectl("delete", "namespace", *left, "--ignore-not-found", seconds=180.0)


def test_the_system_is_installed_asked_upgraded_and_removed_without_helm(source: str) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    (first,) = (place for place, block in enumerate(blocks) if block.startswith(ASK))
    script = "".join(["set -euxo pipefail\n", *blocks[:first], UNTIL_BOTH_SERVE, *blocks[first:]])
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=ROOT,
        env={
            **ENVIRONMENT,
            "SOURCE": source,
            "REGISTRY": images()["registry"],
            "TAG": images()["tag"],
        },
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    for told in ('"failure_probability"', '"anomaly_flag"', "risk_level", '"accepted":1'):
        assert told in done.stdout.replace(" ", ""), told
    assert not any(get("namespace", name) for name in NAMESPACES)
