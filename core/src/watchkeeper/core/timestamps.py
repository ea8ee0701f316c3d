"""Timestamps: RFC 3339 in requests, seconds since 1970 in pipelines and records.

A pipeline can compute with seconds: an age is a difference, an hour a remainder. Microseconds are
the finest that is kept.
"""

import re
from datetime import UTC, datetime
from typing import Final

DECIMALS: Final = 6  # of a second
_FORM: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?(?P<zone>[Zz]|[+-]\d\d:\d\d)?", re.ASCII
)


def seconds(value: str, *, zone_required: bool = True) -> float:
    """Return a time in the form of RFC 3339 as seconds since 1970.

    Args:
        value: for example "2026-11-30T18:00:00Z" or "2026-11-30T19:00:00.5+01:00".
        zone_required: whether a time without a zone is wrong; otherwise it is UTC.

    Raises:
        ValueError: it has another form, or there is no such time.
    """
    form = _FORM.fullmatch(value)
    if form is None or (zone_required and form["zone"] is None):
        zone = " and a time zone" if zone_required else ""
        raise ValueError(
            f"{value[:40]!r} is no time of RFC 3339 with date, time{zone}, such as "
            "2026-11-30T18:00:00Z"
        )
    try:
        time = datetime.fromisoformat(value.upper())
    except ValueError as error:
        raise ValueError(f"{value[:40]!r} is no time: {error}") from error
    return time.replace(tzinfo=time.tzinfo or UTC).timestamp()


def text(value: float) -> str:
    """Return seconds since 1970 as a time in the form of RFC 3339, in UTC."""
    return datetime.fromtimestamp(value, UTC).isoformat().replace("+00:00", "Z")
