"""The chart as plain manifests, for those who `kubectl apply`: made by helm, without its marks.

`python charts/manifests.py` writes manifests/; it needs helm on PATH.
"""

import subprocess
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).resolve().parents[1]
MANIFESTS: Final = ROOT / "manifests"
HOOKS: Final = ["--is-upgrade", "--show-only", "templates/hooks.yaml"]
# How each file is rendered, and which object it is, if it is one: Jobs cannot be changed, so those
# that an upgrade repeats stand apart. Its migrations do for whatever is there, be it nothing.
FILES: Final = {
    "watchkeeper.yaml": (["--no-hooks"], None),
    "migrations.yaml": (HOOKS, "watchkeeper-migrations"),
    "first-runs.yaml": (HOOKS, "watchkeeper-first-runs"),
}
HEAD: Final = """\
# Made from charts/watchkeeper with manifests/values.yaml by `make manifests`; README.md tells how
# to use it. Change the values and make it again rather than this file.
"""


class _Dumper(yaml.SafeDumper):
    """Texts of several lines stay readable, and what looks like a number stays a text."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = '"' if text[:1] in "+-.0123456789" else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, "|" if "\n" in text else style)


_Dumper.add_representer(str, _text)


def rendered(name: str) -> str:
    """Return what a file of manifests/ should hold."""
    words = ["helm", "template", "watchkeeper", str(ROOT / "charts/watchkeeper")]
    words += ["--namespace", "watchkeeper", "--values", str(MANIFESTS / "values.yaml")]
    how, only = FILES[name]
    found = subprocess.run([*words, *how], capture_output=True, text=True, check=True)
    objects = [_plain(one) for one in yaml.load_all(found.stdout, yaml.CSafeLoader) if one]
    wanted = [one for one in objects if only in (None, one["metadata"]["name"])]
    return HEAD + "".join(f"---\n{_dump(one)}" for one in wanted)


def _dump(one: object) -> str:
    return yaml.dump(one, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)


def _plain(node: Any) -> Any:
    """Return an object without labels and annotations that say it is Helm's."""
    if isinstance(node, list):
        return [_plain(one) for one in node]
    if not isinstance(node, dict):
        return node
    kept = {key: _plain(value) for key, value in node.items() if not _is_helms(key, value)}
    if kept.get("annotations") == {}:
        del kept["annotations"]
    return kept


def _is_helms(key: str, value: Any) -> bool:
    return key.startswith("helm.sh/") or (key, value) == ("app.kubernetes.io/managed-by", "Helm")


if __name__ == "__main__":
    for file in FILES:
        (MANIFESTS / file).write_text(rendered(file))
