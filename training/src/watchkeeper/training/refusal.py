"""How the commands of training that ``watchkeeper`` starts say why they end."""

import sys

import msgspec


def fail(message: str, code: int, *, as_json: bool) -> int:
    """Print a message to standard error, for people or as JSON, and return the exit code."""
    line = (
        msgspec.json.encode({"error": message}).decode() if as_json else f"watchkeeper: {message}"
    )
    print(line, file=sys.stderr)
    return code
