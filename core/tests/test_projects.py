"""Projects: folders whose models a process finds without an installation."""

import subprocess
import sys
from pathlib import Path

import pytest

from watchkeeper.core.adoption import AdoptionRule
from watchkeeper.core.projects import ProjectError, is_folder, main, read_project, write_metadata

PYPROJECT = """
[project]
name = "pump-models"
version = "{version}"

[project.entry-points."watchkeeper.models"]
pump-failure = "pump_models.failure:MODEL"
pump-wear = "pump_models.wear:MODEL"

[tool.watchkeeper]
source = "{source}"
"""
FIND = """
from importlib.metadata import entry_points
for entry in sorted(entry_points(group="watchkeeper.models")):
    if entry.dist.name == "pump-models":
        print(entry.name, entry.dist.version, entry.load())
"""


def project(folder: Path, version: str = "1.0", source: str = "readings.csv") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "pyproject.toml").write_text(PYPROJECT.format(version=version, source=source))
    package = folder / "src/pump_models"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").touch()
    (package / "failure.py").write_text("MODEL = 'failure'\n")
    (package / "wear.py").write_text("MODEL = 'wear'\n")
    return folder


@pytest.mark.parametrize("name", [".", "..", "./pumps", "/srv/pumps", "pumps/"])
def test_a_path_is_a_folder(name: str) -> None:
    assert is_folder(name)


def test_a_name_is_a_model() -> None:
    assert not is_folder("pump-failure")


def test_another_process_finds_the_models_of_a_project(tmp_path: Path) -> None:
    found = read_project(project(tmp_path / "pumps"))
    metadata = tmp_path / "metadata"
    for version in ("1.0", "1.1"):  # the metadata of the version before are removed
        found = read_project(project(tmp_path / "pumps", version))
        write_metadata(found, metadata)
        done = subprocess.run(
            [sys.executable, "-c", FIND],
            env=found.environment(metadata),
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == f"pump-failure {version} failure\npump-wear {version} wear\n"


def test_the_source_is_a_file_of_the_project_or_a_url(tmp_path: Path) -> None:
    folder = project(tmp_path / "pumps")
    variables = read_project(folder).environment(tmp_path / "metadata")
    assert variables["WATCHKEEPER_SOURCE_URL"] == f"csv:///{folder}/readings.csv"
    url = "postgresql+psycopg://reader@db/plant"
    assert read_project(project(folder, source=url)).source == url
    assert "WATCHKEEPER_SOURCE_URL" not in read_project(project(folder, source="")).environment(
        tmp_path
    )


BROKEN = {
    "no file": (None, "No such file or directory; 'watchkeeper new' writes a project"),
    "no TOML": ("[project", "'watchkeeper new' writes a project"),
    "no name": ("[project]\n", "missing required field `name`"),
    "no model": ('[project]\nname = "a"\n', "it declares no model; add"),
    "bad name": (
        '[project]\nname = "a"\n[project.entry-points."watchkeeper.models"]\nA_b = "a:M"\n',
        "model name 'A_b'",
    ),
    "unknown key": (
        '[project]\nname = "a"\n[tool.watchkeeper]\nsources = "a.csv"\n',
        "unknown field `sources`",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_folder_that_is_no_project_is_refused_with_the_reason(tmp_path: Path, what: str) -> None:
    content, message = BROKEN[what]
    if content is not None:
        (tmp_path / "pyproject.toml").write_text(content)
    with pytest.raises(ProjectError) as refused:
        read_project(tmp_path)
    assert str(refused.value).startswith(f"{tmp_path / 'pyproject.toml'}: ")
    assert message in str(refused.value)


def test_an_image_writes_the_metadata_by_a_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = project(tmp_path / "pumps")
    assert main([str(folder), str(tmp_path / "metadata")]) == 0
    assert (tmp_path / "metadata/pump_models-1.0.dist-info/entry_points.txt").exists()
    assert main([str(tmp_path)]) == 2
    assert main([str(tmp_path), str(tmp_path)]) == 2
    assert "it declares no model" not in capsys.readouterr().out


def test_a_project_says_which_versions_of_mlflow_its_models_adopt(tmp_path: Path) -> None:
    folder = project(tmp_path / "pumps")
    with (folder / "pyproject.toml").open("a") as file:
        file.write('adopt.pump-wear = {model = "wear", when = "each"}\n')
    assert read_project(folder).adopt == {"pump-wear": AdoptionRule("wear", "each")}
    with (folder / "pyproject.toml").open("a") as file:
        file.write('adopt.other = {model = "wear"}\n')
    with pytest.raises(ProjectError, match="adopt: it declares no model 'other'"):
        read_project(folder)
