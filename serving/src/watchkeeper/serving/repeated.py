"""Names that one JSON object has twice: readers differ in which value they take, so none is."""

import json
from typing import Any

from watchkeeper.serving.refusals import Refused


def refuse_repeated(body: bytes, names: int) -> None:
    """Refuse a body in which an object has the same name twice.

    ``names`` is how many the decoder has found, each once. A colon stands behind every name: as
    many of them as names mean that none was there twice. More of them can stand in a text or
    behind a name that the decoder skips, and only then the body is read once more.

    Raises:
        Refused: a name came twice; the message says which.
    """
    if body.count(b":") == names:
        return
    try:
        json.loads(body, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise Refused(f"the body is not valid JSON: {error}") from error


def _once(pairs: list[tuple[str, Any]]) -> None:
    found: set[str] = set()
    for name, _ in pairs:
        if name in found:
            raise Refused(f"the name {name!r} is given twice in one object of the body")
        found.add(name)
