"""Comments and literals of generated code, as ruff formats them."""

import textwrap
from collections.abc import Iterable
from typing import Final

WIDTH: Final = 100


def comment(note: str, first: str, others: str) -> Iterable[str]:
    """Return the lines of a comment, which begin with ``first`` and with ``others``."""
    return textwrap.wrap(
        " ".join(note.split()), WIDTH, initial_indent=first, subsequent_indent=others
    )


def literal(value: str) -> str:
    """Return a text as a literal of Python in double quotation marks, if it has none itself."""
    shown = repr(value)
    return f'"{shown[1:-1]}"' if '"' not in shown and shown[0] == "'" else shown
