"""The table of the chart's values, made from the comments in its values.yaml.

A comment that begins with `# --` explains the key below it, as helm-docs has it; `# @default --`
says in words what is meant when nothing is given. `python charts/values_table.py` writes the table.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import yaml

CHART: Final = Path(__file__).resolve().parent / "watchkeeper"
README: Final = CHART / "README.md"
BEGIN: Final = "<!-- made by charts/values_table.py from values.yaml: begin -->\n"
END: Final = "<!-- end -->\n"


class UnexplainedError(Exception):
    """A value that no comment explains."""


class Value(NamedTuple):
    """One row: a key by its path, what it is for, and what it is by default."""

    path: str
    told: str
    default: str


def values(text: str) -> Iterator[Value]:
    """Return the explained values of a values.yaml, in its order.

    Raises:
        UnexplainedError: a value has no comment, nor has a map that it is in.
    """
    yield from _inside(yaml.compose(text, Loader=yaml.SafeLoader), text.splitlines(), ())


def _inside(node: yaml.MappingNode, lines: list[str], above: tuple[str, ...]) -> Iterator[Value]:
    for key, value in node.value:
        path = (*above, key.value)
        told, default = _comment(lines[: key.start_mark.line])
        if told:
            meant = default or f"`{json.dumps(_plain(value), ensure_ascii=False)}`"
            yield Value(".".join(path), told, meant)
        elif isinstance(value, yaml.MappingNode) and value.value:
            yield from _inside(value, lines, path)
        else:
            raise UnexplainedError(f"values.yaml: no comment explains {'.'.join(path)}")


def _comment(before: list[str]) -> tuple[str, str]:
    """Return what the comment right above a key tells, and its words for the default."""
    comment: list[str] = []
    while before and (line := before[-1].strip()).startswith("#"):
        comment.insert(0, line.lstrip("#").strip())
        before = before[:-1]
    told, default, explains = [], "", False
    for line in comment:
        if line.startswith("@default --"):
            default = line.removeprefix("@default --").strip()
        elif line.startswith("--"):
            told, explains = [line.removeprefix("--").strip()], True
        elif explains:
            told.append(line)
    return " ".join(told), default


def _plain(node: yaml.Node) -> object:
    return yaml.safe_load(yaml.serialize(node))


def table() -> str:
    """Return the table as Markdown."""
    rows = ["| value | what for | default |", "|---|---|---|"]
    for value in values((CHART / "values.yaml").read_text()):
        cells = (f"`{value.path}`", value.told, value.default)
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows) + "\n"


def readme() -> str:
    """Return the chart's README with the table as it should be."""
    before, _, rest = README.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    README.write_text(readme())
