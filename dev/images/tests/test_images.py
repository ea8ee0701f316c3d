import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from watchkeeper.cluster.layout import ClusterError
from watchkeeper.images import indexes
from watchkeeper.images.builder import Builder
from watchkeeper.images.sources import COMPONENT_FILE, REGISTRY, digests, images, tag_of

ROOT = Path(__file__).parents[3]


class Store:
    """Remembers images as an engine and as a cluster does, and what was asked of it."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.built: list[str] = []
        self.loaded: list[str] = []

    def images(self) -> dict[str, str]:
        return dict(self.names)

    def build(self, _root: Path, _file: str, reference: str, _words: list[str]) -> None:
        self.built.append(reference.rpartition("/")[2].partition(":")[0])
        self.names[reference] = "1 MB"

    def load(self, reference: str) -> None:
        self.loaded.append(reference)
        self.names[reference] = "1 MB"

    def remove(self, references: list[str]) -> None:
        for reference in references:
            del self.names[reference]


class Engine(Store):
    def trim(self) -> None:
        pass

    def tag(self, reference: str, another: str) -> None:
        self.names[another] = self.names[reference]


class Place(Store):
    def images(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset(self.names)

    def tag(self, names: Mapping[str, str]) -> None:
        for old, new in names.items():
            self.names[new] = self.names[old]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The projects of this checkout without their code, each with one file instead."""
    for file in [*ROOT.glob("*/pyproject.toml"), *ROOT.glob("models/*/pyproject.toml")]:
        folder = tmp_path / file.parent.relative_to(ROOT)
        (folder / "src").mkdir(parents=True)
        (folder / "src" / "one.py").write_text("1")
        shutil.copy(file, folder)
    (tmp_path / "uv.lock").touch()
    return tmp_path


def test_every_image_has_a_dockerfile_in_the_project() -> None:
    for image in images(ROOT).values():
        assert (ROOT / image.dockerfile).is_file()


def test_a_component_s_source_changes_its_own_image_and_the_tag(project: Path) -> None:
    before = digests(project, "base")
    (project / "drift" / "src" / "one.py").write_text("2")
    after = digests(project, "base")
    assert [name for name in before if before[name] != after[name]] == ["watchkeeper-drift"]
    assert tag_of(before) != tag_of(after)


def test_bytecode_and_tests_change_nothing(project: Path) -> None:
    before = digests(project, "base")
    for folder in ("drift/src/__pycache__", "drift/tests"):
        (project / folder).mkdir()
        (project / folder / "one.pyc").write_text("2")
    assert digests(project, "base") == before


def test_the_base_changes_every_image_and_core_every_image_with_code(project: Path) -> None:
    before = digests(project, "base")
    assert all(before[name] != digests(project, "another")[name] for name in before)
    (project / "core" / "src" / "one.py").write_text("2")
    with_code = {n for n, image in images(project).items() if image.dockerfile == COMPONENT_FILE}
    after = digests(project, "base")
    assert {name for name in before if before[name] != after[name]} == with_code


def test_a_model_changes_the_image_for_training_alone(project: Path) -> None:
    before = digests(project, "base")
    model = next(project.glob("models/*"))
    (model / "src" / "one.py").write_text("2")
    after = digests(project, "base")
    assert [name for name in before if before[name] != after[name]] == ["watchkeeper-training"]
    assert model.name in images(project)["watchkeeper-training"].arguments["PACKAGES"].split()


@pytest.mark.parametrize("component", ["cli", "drift", "rollout", "serving", "training"])
def test_an_image_is_built_from_all_projects_that_it_installs(component: str) -> None:
    sources = images(ROOT)[f"watchkeeper-{component}"].sources
    code = "".join(p.read_text() for p in (ROOT / component / "src").rglob("*.py"))
    for name in re.findall(r"^ *from watchkeeper\.(\w+)", code, re.MULTILINE):
        assert f"{name}/src" in sources


def test_only_what_changed_is_built_and_loaded(project: Path) -> None:
    engine, place = Engine(), Place()
    Builder(project, engine, "base").run(place)
    assert sorted(engine.built) == sorted(images(project))
    engine.built.clear()
    place.loaded.clear()
    (project / "cli" / "src" / "one.py").write_text("2")
    builder = Builder(project, engine, "base")
    builder.run(place)
    assert engine.built == ["watchkeeper-cli"]
    assert len(place.loaded) == 1
    assert all(f"{REGISTRY}/{name}:{builder.tag}" in place.names for name in images(project))
    assert (project / ".images" / "tag").read_text().strip() == builder.tag
    assert builder.tag in (project / ".images" / "values.yaml").read_text()


def test_the_last_two_tags_stay_and_older_ones_go(project: Path) -> None:
    engine, place = Engine(), Place()
    engine.names["localhost/others:1"] = "1 MB"
    tags = []
    for content in ("a", "b", "c"):
        (project / "cli" / "src" / "one.py").write_text(content)
        builder = Builder(project, engine, "base")
        builder.run(place)
        tags.append(builder.tag)
    for store in (engine, place):
        found = {name.rpartition(":")[2] for name in store.names if "cli:" in name}
        assert {tags[1], tags[2]} < found
        assert tags[0] not in found
        assert len([name for name in store.names if "cli:made-" in name]) == 2
    assert "localhost/others:1" in engine.names
    assert list(json.loads((project / ".images" / "history.json").read_text())) == tags[1:]


def test_a_build_that_fails_leaves_the_chart_the_tag_before(project: Path) -> None:
    engine = Engine()
    first = Builder(project, engine, "base")
    first.run(None)
    (project / "cli" / "src" / "one.py").write_text("2")

    class Failing(Engine):
        def build(self, _root: Path, _folder: str, _reference: str, _words: list[str]) -> None:
            raise ClusterError("no")

    with pytest.raises(ClusterError, match="no"):
        Builder(project, Failing(), "base").run(None)
    assert (project / ".images" / "tag").read_text().strip() == first.tag


def test_uv_is_told_the_index_that_pip_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexes, "UV_FILES", (tmp_path / "uv.toml",))
    pip = {"index-url": "https://one/simple", "extra-index-url": "https://two https://three"}
    assert indexes.uv_settings(pip, {}).splitlines() == [
        "native-tls = true",
        'index-url = "https://one/simple"',
        'extra-index-url = ["https://two", "https://three"]',
    ]
    (tmp_path / "uv.toml").write_text("offline = true\n")
    assert indexes.uv_settings(pip, {}) == "offline = true\n"


def test_a_gateway_on_kind_is_reached_as_on_the_cluster_of_make_cluster() -> None:
    def service(path: Path) -> Any:
        proxy, of = yaml.safe_load_all(path.read_text())
        found = proxy["spec"]["provider"]["kubernetes"]["envoyService"]
        found["patch"]["value"]["spec"]["externalIPs"] = []
        return found, of

    ours = ROOT / "dev/cluster/src/watchkeeper/cluster/manifests/gateway.yaml"
    assert service(ROOT / "dev/images/kind-gateway.yaml") == service(ours)


def test_what_is_taken_out_of_images_changes_every_image(project: Path) -> None:
    before = digests(project, "base")
    (project / "images").mkdir()
    (project / "images" / "trim").write_text("rm -rf everything")
    assert all(before[name] != digests(project, "base")[name] for name in before)


def test_kind_gets_the_releases_that_the_cluster_of_make_cluster_has() -> None:
    (node,) = yaml.safe_load((ROOT / "kind-config.yaml").read_text())["nodes"]
    release = re.search(r"k8s.io/kubernetes v(1\.\d+)\.", _modules("kubernetes"))
    assert release
    assert re.fullmatch(rf"kindest/node:v{release[1]}\.\d+@sha256:[0-9a-f]{{64}}", node["image"])
    assert node["extraPortMappings"] == [
        {"containerPort": 80, "hostPort": 8080, "listenAddress": "127.0.0.1"}
    ]
    script = (ROOT / "dev/images/kind").read_text()
    named = re.findall(r"\$\(pinned (\S+) (\S+)\)", script)
    assert len(named) == 2
    for module, path in named:
        assert re.search(rf"(^|=> ?|\s){re.escape(path)} v\d", _modules(module))
    for file in re.findall(r"\S+\.yaml", script):
        assert (ROOT / file).is_file()


def _modules(name: str) -> str:
    return (ROOT / "dev/cluster/go" / name / "go.mod").read_text()
