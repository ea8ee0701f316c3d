"""Runs the commands of manifests/README.md: install, requests, upgrade and removal without Helm."""

import re
import subprocess
from collections.abc import Iterator

import pytest
from declared_models import MODELS, output_names
from installation import image, images
from kube import ENVIRONMENT, ROOT, get, kubectl
from plant_database import PlantDatabase

README = ROOT / "manifests/README.md"
NAMESPACES = ("watchkeeper", "watchkeeper-training")
PLANT = "watchkeeper-plant"
LIMIT_SECONDS = 900.0
FIRST_REQUEST = "GATEWAY="  # the start of the first block that sends requests
# The README says to wait for a version in production before that block.
WAIT_FOR_VERSION = """
until kubectl exec -n watchkeeper deploy/watchkeeper-cli -- watchkeeper status --json | python3 -c '
import json, sys
sys.exit(any(model["production"] is None for model in json.load(sys.stdin)["models"]))'
do sleep 1; done
"""


@pytest.fixture
def source() -> Iterator[str]:
    """The URL of an operational database for pods."""
    if any(get("namespace", name) for name in NAMESPACES):
        pytest.skip(f"one of the namespaces {', '.join(NAMESPACES)} exists")
    kubectl("create", "namespace", PLANT)
    try:
        yield PlantDatabase(PLANT, image("postgresql")).inside
    finally:
        namespaces = (*NAMESPACES, PLANT)
        kubectl("delete", "namespace", *namespaces, "--ignore-not-found", seconds=180.0)


@pytest.mark.parametrize("model", MODELS)
def test_the_commands_install_use_upgrade_and_remove_the_system(source: str, model: str) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    (first,) = (i for i, block in enumerate(blocks) if block.startswith(FIRST_REQUEST))
    script = "".join(["set -euxo pipefail\n", *blocks[:first], WAIT_FOR_VERSION, *blocks[first:]])
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=ROOT,
        env={
            **ENVIRONMENT,
            "SOURCE": source,
            "MODEL": model,
            "REGISTRY": images()["registry"],
            "TAG": images()["tag"],
        },
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    output = done.stdout.replace(" ", "")
    for expected in (*(f'"{name}"' for name in output_names(model)), '"accepted":1'):
        assert expected in output
    assert not any(get("namespace", name) for name in NAMESPACES)
