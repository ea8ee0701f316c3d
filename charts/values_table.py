"""Generates the table of the chart's values from the comments in values.yaml.

As in helm-docs, a comment that begins with ``# --`` describes the key below it, and
``# @default --`` replaces the default value by words. ``python charts/values_table.py`` writes the
table into the chart's README.
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


class MissingDescriptionError(Exception):
    """A value has no comment."""


class Value(NamedTuple):
    """One row of the table. ``path`` is the key with its parents, such as ``gateway.port``."""

    path: str
    description: str
    default: str


def values(text: str) -> Iterator[Value]:
    """Return the described values of a values.yaml, in its order.

    A description of a map covers the keys in it.

    Raises:
        MissingDescriptionError: neither a value nor a map above it has a comment.
    """
    yield from _values(yaml.compose(text, Loader=yaml.SafeLoader), text.splitlines(), ())


def _values(node: yaml.MappingNode, lines: list[str], parents: tuple[str, ...]) -> Iterator[Value]:
    for key, value in node.value:
        path = (*parents, key.value)
        description, default = _comment(lines[: key.start_mark.line])
        if description:
            yield Value(".".join(path), description, default or _as_code(value))
        elif isinstance(value, yaml.MappingNode) and value.value:
            yield from _values(value, lines, path)
        else:
            raise MissingDescriptionError(
                f"values.yaml: {'.'.join(path)} has no description; "
                "add a comment '# -- ...' above it"
            )


def _comment(lines: list[str]) -> tuple[str, str]:
    """Return description and default from the comment at the end of ``lines``."""
    comment: list[str] = []
    while lines and (line := lines[-1].strip()).startswith("#"):
        comment.insert(0, line.lstrip("#").strip())
        lines = lines[:-1]
    description: list[str] = []
    default = ""
    for line in comment:
        if line.startswith("@default --"):
            default = line.removeprefix("@default --").strip()
        elif line.startswith("--"):
            description = [line.removeprefix("--").strip()]
        elif description:
            description.append(line)
    return " ".join(description), default


def _as_code(node: yaml.Node) -> str:
    return f"`{json.dumps(yaml.safe_load(yaml.serialize(node)), ensure_ascii=False)}`"


def table() -> str:
    """Return the table as Markdown."""
    rows = ["| value | description | default |", "|---|---|---|"]
    for value in values((CHART / "values.yaml").read_text()):
        cells = (f"`{value.path}`", value.description, value.default)
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows) + "\n"


def readme() -> str:
    """Return the chart's README with the current table."""
    before, _, rest = README.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    README.write_text(readme())
