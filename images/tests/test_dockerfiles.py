"""Each component has a Dockerfile of its own, and what they have in common is the same in all."""

import re
from pathlib import Path

import pytest

from watchkeeper.images.sources import IMAGES

ROOT = Path(__file__).parents[2]
WITH_CODE = [folder for folder in IMAGES.values() if (ROOT / folder / "src").is_dir()]
END = re.compile(r"^(ENTRYPOINT|CMD|EXPOSE) .*\n", re.MULTILINE)


def dockerfile(folder: str) -> str:
    return (ROOT / folder / "Dockerfile").read_text()


def stages(folder: str) -> dict[str, str]:
    """The stages by name, the one that is kept as "", what stands before all as "before"."""
    before, *found = re.split(r"^(?=FROM )", dockerfile(folder), flags=re.MULTILINE)
    names = [re.match(r"FROM \S+(?: AS (\w+))?\n", stage) for stage in found]
    return {
        "before": before,
        **{(name and name[1]) or "": stage for name, stage in zip(names, found, strict=True)},
    }


def common(folder: str) -> str:
    """A component's Dockerfile without what is its own: its name, and what it runs."""
    return END.sub("", dockerfile(folder).replace(folder, "COMPONENT"))


@pytest.mark.parametrize("folder", WITH_CODE[1:])
def test_components_with_code_of_ours_differ_by_their_name_and_what_they_run(folder: str) -> None:
    assert common(folder) == common(WITH_CODE[0])


def test_there_are_components_to_compare() -> None:
    assert {"cli", "drift", "rollout", "serving", "training"} <= set(WITH_CODE)


@pytest.mark.parametrize("folder", IMAGES.values())
def test_all_stand_on_the_same_base_and_run_as_the_same_user(folder: str) -> None:
    model, found = stages(WITH_CODE[0]), stages(folder)
    arguments = re.findall(r"^ARG .*$", found["before"], re.MULTILINE)
    assert arguments == re.findall(r"^ARG .*$", model["before"], re.MULTILINE)
    assert re.search(r"@sha256:[0-9a-f]{64}$", arguments[0])
    assert found[""].startswith("FROM ${BASE}\n")
    emptied = r"^RUN rm -rf /usr/local/bin/pip(?:.*\\\n)+.*\n"
    first = re.search(emptied, found[""], re.MULTILINE)
    assert first is not None
    assert first[0] == re.search(emptied, model[""], re.MULTILINE)[0]  # type: ignore[index]
    users = re.findall(r"^USER .*$", found[""], re.MULTILINE)
    assert users == ["USER 65532:65532"]


def test_the_registry_is_installed_as_the_components_are() -> None:
    model, found = stages("cli"), stages("registry")
    assert _code(found["uv"]) == _code(model["uv"])
    installs = found["packages"].replace("registry", "cli").replace(" --no-editable", "")
    for line in _code(installs).splitlines():
        assert line in _code(model["packages"]).replace(" --no-editable --no-install-local", "")


def _code(stage: str) -> str:
    return "\n".join(line for line in stage.splitlines() if line and not line.startswith("#"))
