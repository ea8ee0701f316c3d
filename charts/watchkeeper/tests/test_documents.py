"""What is written down of the chart is made from it, and as it is."""

import shutil

import pytest
import values_table
import yaml

import manifests


def test_the_table_of_values_is_that_of_the_values() -> None:
    assert values_table.README.read_text() == values_table.readme(), "make manifests"


def test_every_value_is_in_the_table() -> None:
    text = (values_table.CHART / "values.yaml").read_text()
    told = [value.path for value in values_table.values(text)]
    for path in _leaves(yaml.safe_load(text)):
        assert any(f"{path}.".startswith(f"{known}.") for known in told), path


def test_a_value_without_a_comment_is_noticed() -> None:
    text = "a:\n  # -- told\n  b: 1\n  # nobody knows\n  c: 2\n"
    with pytest.raises(values_table.UnexplainedError, match=r"no comment explains a\.c"):
        list(values_table.values(text))


def test_a_comment_of_several_lines_is_one_text_and_the_default_may_be_in_words() -> None:
    text = "# an introduction\n# -- one\n# and more\n# @default -- none\na: {}\n"
    assert list(values_table.values(text)) == [values_table.Value("a", "one and more", "none")]


@pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not on PATH")
@pytest.mark.parametrize("name", manifests.FILES)
def test_manifests_are_what_the_chart_renders(name: str) -> None:
    assert (manifests.MANIFESTS / name).read_text() == manifests.rendered(name), "make manifests"


def test_manifests_hold_no_secret_and_nothing_of_helms() -> None:
    for path in manifests.MANIFESTS.glob("*.yaml"):
        for one in yaml.safe_load_all(path.read_text()):
            assert (one or {}).get("kind") != "Secret", path
        assert "helm.sh" not in path.read_text(), path


def _leaves(node: object, above: str = "") -> list[str]:
    if not isinstance(node, dict) or not node:
        return [above]
    return [
        leaf
        for key, value in node.items()
        for leaf in _leaves(value, f"{above}.{key}" if above else key)
    ]
