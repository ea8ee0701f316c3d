"""What is in the images that were built: little, and nothing that installs or raises rights."""

import re
import tomllib
from collections.abc import Iterator

import pytest
from built import ROOT, Built, built

from watchkeeper.images.sources import images

NAMES = sorted(images(ROOT))
LIMITS = tomllib.loads((ROOT / "images/limits.toml").read_text())
WITH_SHELL = {"watchkeeper-cli", "watchkeeper-mlflow", "watchkeeper-postgresql"}
SHELLS = {"sh", "bash", "dash", "rbash", "busybox"}
INSTALLERS = {
    *("apt", "apt-get", "dpkg", "dpkg-deb", "pip", "pip3", "uv", "easy_install"),
    *("perl", "gcc", "cc", "ld", "curl", "wget", "su", "sudo", "mount", "login", "passwd"),
}
IMPORT_ALL = """
import importlib, pkgutil, watchkeeper
for module in pkgutil.walk_packages(watchkeeper.__path__, "watchkeeper."):
    if not module.name.endswith("__main__"):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if error.name not in {optional}:
                raise
        else:
            print(module.name)
"""
OPTIONAL = {  # what only some modules of a package need: its image, and the library
    # Extras: onnx of pipeline is for training, snapshots of registry for it and the command line.
    "watchkeeper-rollout": ("onnx", "obstore"),
    "watchkeeper-serving": ("obstore",),
}


@pytest.fixture(scope="module", params=NAMES)
def image(request: pytest.FixtureRequest) -> Iterator[tuple[str, Built]]:
    with built(request.param) as found:
        yield request.param, found


def test_every_image_has_a_limit_and_a_line_in_the_documentation() -> None:
    assert sorted(LIMITS) == NAMES
    page = (ROOT / "docs/explanation/security.md").read_text()
    for name in NAMES:
        assert re.search(
            rf"^\| `{name.removeprefix('watchkeeper-')}` \| \d+ \|", page, re.MULTILINE
        )


def test_an_image_is_not_larger_than_its_limit(image: tuple[str, Built]) -> None:
    name, found = image
    assert sum(file.size for file in found.files()) / 1e6 <= LIMITS[name]


def test_no_file_is_setuid_or_setgid(image: tuple[str, Built]) -> None:
    _, found = image
    assert [file.path for file in found.files() if file.mode & 0o6000] == []


def test_nothing_installs_packages_and_only_some_have_a_shell(image: tuple[str, Built]) -> None:
    name, found = image
    programs = {
        file.path.rpartition("/")[2]
        for file in found.files()
        if re.search(r"(^|/)s?bin/[^/]+$", file.path)
    }
    assert not programs & INSTALLERS
    assert bool(programs & SHELLS) == (name in WITH_SHELL)


def test_scanners_find_the_packages_of_debian(image: tuple[str, Built]) -> None:
    _, found = image
    paths = {file.path for file in found.files()}
    assert {"var/lib/dpkg/status.d/libc6", "var/lib/dpkg/status.d/libssl3"} & paths
    assert "usr/share/doc/libc6/copyright" in paths


def test_every_module_of_ours_can_be_imported(image: tuple[str, Built]) -> None:
    name, found = image
    if name in ("watchkeeper-mlflow", "watchkeeper-postgresql"):
        pytest.skip("it contains no code of ours")
    component = f"watchkeeper.{name.removeprefix('watchkeeper-')}"
    program = IMPORT_ALL.format(optional=OPTIONAL.get(name, ()))
    assert component in found.run("python", "-c", program).split()
