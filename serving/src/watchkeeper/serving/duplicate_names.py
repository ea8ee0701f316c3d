"""Refuse JSON objects that contain a name twice: parsers differ in the value that they take."""

import json
from typing import Any

from watchkeeper.serving.errors import RequestError


def refuse_duplicate_names(body: bytes, names: int) -> None:
    """Raise if an object in the body contains the same name twice.

    Every name is followed by a colon. If the body has exactly as many colons as the decoder found
    names, no name occurs twice, and the check costs one pass in C. More colons can also come from
    text values or from objects that the decoder skips. Only then the body is parsed again.

    Args:
        body: The JSON document.
        names: How many different names the decoder found, counted per object.

    Raises:
        RequestError: A name occurs twice, or the body is not valid JSON.
    """
    if body.count(b":") == names:
        return
    try:
        json.loads(body, object_pairs_hook=_check_object)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the body is not valid JSON: {error}") from error


def _check_object(pairs: list[tuple[str, Any]]) -> None:
    found: set[str] = set()
    for name, _ in pairs:
        if name in found:
            raise RequestError(f"the name {name!r} occurs twice in one object of the body")
        found.add(name)
