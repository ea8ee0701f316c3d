"""The error of a declaration."""

from collections.abc import Iterable


class DeclarationError(ValueError):
    """A declaration contradicts itself; the message says where and which names are known."""


def listed(names: Iterable[str]) -> str:
    """Return names for a message."""
    return ", ".join(repr(name) for name in names)
