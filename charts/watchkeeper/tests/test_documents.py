"""The generated documents of the chart are current."""

import shutil

import pytest
import values_table
import yaml

import manifests


def test_the_table_of_values_is_current() -> None:
    assert values_table.README.read_text() == values_table.readme(), "run `make manifests`"


def test_every_value_is_in_the_table() -> None:
    text = (values_table.CHART / "values.yaml").read_text()
    described = [value.path for value in values_table.values(text)]
    for path in _leaves(yaml.safe_load(text)):
        assert any(f"{path}.".startswith(f"{known}.") for known in described), path


def test_a_value_without_a_comment_is_an_error() -> None:
    text = "a:\n  # -- described\n  b: 1\n  # not described\n  c: 2\n"
    with pytest.raises(values_table.MissingDescriptionError, match=r"a\.c has no description"):
        list(values_table.values(text))


def test_the_lines_of_a_comment_are_joined_and_a_default_may_be_text() -> None:
    text = "# an introduction\n# -- one\n# and more\n# @default -- none\na: {}\n"
    assert list(values_table.values(text)) == [values_table.Value("a", "one and more", "none")]


@pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not on PATH")
@pytest.mark.parametrize("name", manifests.FILES)
def test_manifests_are_current(name: str) -> None:
    assert (manifests.MANIFESTS / name).read_text() == manifests.rendered(name), (
        "run `make manifests`"
    )


def test_manifests_contain_no_secret_and_no_trace_of_helm() -> None:
    for path in manifests.MANIFESTS.glob("*.yaml"):
        for each in yaml.safe_load_all(path.read_text()):
            assert (each or {}).get("kind") != "Secret", path
        assert "helm.sh" not in path.read_text(), path


def _leaves(node: object, parent: str = "") -> list[str]:
    if not isinstance(node, dict) or not node:
        return [parent]
    return [
        leaf
        for key, value in node.items()
        for leaf in _leaves(value, f"{parent}.{key}" if parent else key)
    ]
