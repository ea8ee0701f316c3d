"""All images have the same common layers, the same user and nothing that installs packages."""

import re
from pathlib import Path

import pytest

from watchkeeper.images.sources import COMPONENT_FILE, images

ROOT = Path(__file__).parents[3]
FILES = sorted({image.dockerfile for image in images(ROOT).values()})
OTHERS = [file for file in FILES if file != COMPONENT_FILE]


def stages(file: str) -> dict[str, str]:
    """The stages by name, the last one as "", what stands before all of them as "before"."""
    text = (ROOT / file).read_text()
    before, *found = re.split(r"^(?=FROM )", text, flags=re.MULTILINE)
    names = [re.match(r"FROM \S+(?: AS (\w+))?\n", stage) for stage in found]
    return {
        "before": before,
        **{(name and name[1]) or "": stage for name, stage in zip(names, found, strict=True)},
    }


def instructions(stage: str) -> str:
    return "\n".join(line for line in stage.splitlines() if line and not line.startswith("#"))


def test_one_dockerfile_builds_every_component() -> None:
    components = [image for image in images(ROOT).values() if image.dockerfile == COMPONENT_FILE]
    assert {image.arguments["COMPONENT"] for image in components} == {
        *("cli", "drift", "rollout", "serving", "training")
    }


@pytest.mark.parametrize("file", OTHERS)
def test_all_are_built_on_the_same_base_and_from_the_same_common_layers(file: str) -> None:
    model, found = stages(COMPONENT_FILE), stages(file)
    arguments = re.findall(r"^ARG .*$", found["before"], re.MULTILINE)
    assert arguments == re.findall(r"^ARG .*$", model["before"], re.MULTILINE)
    assert re.search(r"@sha256:[0-9a-f]{64}$", arguments[0])
    assert instructions(found["debian"]) == instructions(model["debian"])


@pytest.mark.parametrize("file", FILES)
def test_an_image_starts_empty_and_its_user_is_not_root(file: str) -> None:
    last = instructions(stages(file)[""]).splitlines()
    assert last[:2] == ["FROM scratch", "COPY --from=debian /minimal/system /"]
    assert not [line for line in last if line.startswith("RUN")]
    assert [line for line in last if line.startswith("USER")] == ["USER 65532:65532"]


def test_mlflow_is_installed_by_the_same_uv_as_the_components() -> None:
    model, found = stages(COMPONENT_FILE), stages("images/mlflow/Dockerfile")
    assert instructions(found["uv"]) == instructions(model["uv"])
    assert "uv sync --locked --no-dev" in found["packages"]
