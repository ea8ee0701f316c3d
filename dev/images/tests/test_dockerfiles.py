"""All images have the same base, the same user and nothing that installs packages."""

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
def test_all_stand_on_the_same_base_and_run_as_the_same_user(file: str) -> None:
    model, found = stages(COMPONENT_FILE), stages(file)
    arguments = re.findall(r"^ARG .*$", found["before"], re.MULTILINE)
    assert arguments == re.findall(r"^ARG .*$", model["before"], re.MULTILINE)
    assert re.search(r"@sha256:[0-9a-f]{64}$", arguments[0])
    assert found[""].startswith("FROM ${BASE}\n")
    emptied = r"^RUN rm -rf /usr/local/bin/pip(?:.*\\\n)+.*\n"
    first = re.search(emptied, found[""], re.MULTILINE)
    assert first is not None
    assert first[0] == re.search(emptied, model[""], re.MULTILINE)[0]  # type: ignore[index]
    assert re.findall(r"^USER .*$", found[""], re.MULTILINE) == ["USER 65532:65532"]


def test_components_run_as_a_user_who_is_not_root() -> None:
    assert re.findall(r"^USER .*$", stages(COMPONENT_FILE)[""], re.MULTILINE) == [
        "USER 65532:65532"
    ]


def test_mlflow_is_installed_by_the_same_uv_as_the_components() -> None:
    model, found = stages(COMPONENT_FILE), stages("images/mlflow/Dockerfile")
    assert instructions(found["uv"]) == instructions(model["uv"])
    assert "uv sync --locked --no-dev" in found["packages"]
