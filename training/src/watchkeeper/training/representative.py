"""Which values of the recent rows describe the traffic: those may become part of a reference.

A reference is representative or is not used. Three kinds of values are left out:

broken
    The watch called the column broken in a window with this row.
stuck
    The column holds one value in many more rows of a window than the history ever shows, by the
    rule of the watch (:mod:`watchkeeper.core.stuck`).
payload, request, client, subject
    Rows beyond the share that one contributor may have, evenly in time. Equal rows are one payload.

A contributor may have ``max_share`` of the rows more than usual. What is usual comes from the rows
themselves, so nothing is left out where one client sends everything, where few machines send in
turn, or where rows are equal by nature. It is the largest of these shares:

- the median of the other contributors of the kind;
- of a payload, its share of the history;
- of a client or a subject, the median of its shares of twenty stretches of time. A load test is
  there for some of the time, an ordinary client all the time.

A share of the rows moves the effect of a feature by at most itself, and the smallest effect that
counts as drift is 0.2.
"""

from collections.abc import Iterable
from typing import Any, Final

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from watchkeeper.core.stuck import stuck_value, usual_share
from watchkeeper.training.declaration import Model
from watchkeeper.training.duplicates import equal_rows
from watchkeeper.training.rows import Rows, joined

STRETCHES: Final = 20

Mask = NDArray[np.bool_]
Codes = NDArray[np.int64]  # of shape (rows,); a number for each contributor, -1 for none


class Request(msgspec.Struct, frozen=True):
    """Who sent a request, and when: record time, seconds since 1970."""

    time: float
    client: str
    subject: str


class BrokenColumn(msgspec.Struct, frozen=True):
    """A window in which the watch called a column broken, by record time."""

    column: str
    start: float
    end: float


class Selection(msgspec.Struct, frozen=True):
    """``rows`` with their ``typical`` values; ``left_out`` counts rows, by the reason.

    A row of which only some columns are broken or stuck counts, although it is left out in these
    columns only.
    """

    rows: Rows
    left_out: dict[str, int]


def select_typical(
    history: Rows,
    recent: Rows,
    requests: dict[str, Request],
    broken: Iterable[BrokenColumn],
    model: Model,
) -> Selection:
    """Find the values of the recent rows that describe the traffic. The result is deterministic.

    Args:
        history: the rows of the history, oldest first.
        recent: the recent rows, oldest first.
        requests: the requests of the recent rows, by the key of a row.
        broken: what the watch called broken.
        model: its policies have the limits.
    """
    if not len(recent):
        return Selection(recent, {})
    sent = [requests[key] for key in recent.key]
    times = np.array([request.time for request in sent])
    typical = np.ones((len(recent), len(model.names)), dtype=bool)
    for fault in broken:
        if fault.column in model.names:
            seen = (times >= fault.start) & (times <= fault.end)
            typical[seen, model.names.index(fault.column)] = False
    left_out = {"broken": int((~typical).any(axis=1).sum())}
    stuck = _stuck(history, recent, model)
    left_out["stuck"] = int((stuck & typical).any(axis=1).sum())
    typical &= ~stuck
    some = np.asarray(typical.any(axis=1))
    within, beyond = _within_shares(history, recent, sent, some, model)
    typical[~within] = False
    rows = msgspec.structs.replace(recent, typical=typical)
    return Selection(rows, {kind: count for kind, count in {**left_out, **beyond}.items() if count})


def _stuck(history: Rows, recent: Rows, model: Model) -> Mask:
    """Return which values (rows, columns) are those of a stuck column in a window."""
    found = np.zeros((len(recent), len(model.names)), dtype=bool)
    size = min(model.drift.window, len(recent))
    # The last window overlaps the one before: a short rest would show little.
    begins = [*range(0, len(recent) - size, size), len(recent) - size]
    for place, name in enumerate(model.names):
        categorical = name in model.categories
        old, new = _numbers(history.columns[name], recent.columns[name], categorical=categorical)
        usual = usual_share(old, size)
        for begin in begins:
            part = slice(begin, begin + size)
            value = stuck_value(
                new[part], usual, model.drift.minimum_effect, categorical=categorical
            )
            if value is not None:
                found[part, place] |= new[part] == value
    return found


def _within_shares(
    history: Rows, recent: Rows, sent: list[Request], kept: Mask, model: Model
) -> tuple[Mask, dict[str, int]]:
    """Return which rows (rows,) are within all shares, and how many each kind has left out."""
    every = equal_rows(joined(history, recent).columns)
    old, payload = every[: len(history)], every[len(history) :]
    in_history = np.bincount(old, minlength=int(every.max()) + 1) / max(len(old), 1)
    times = np.array([request.time for request in sent])
    kinds: dict[str, Codes] = {
        "payload": payload,
        "request": _codes(recent.key),
        "client": _codes([request.client for request in sent]),
        "subject": _codes([request.subject for request in sent], none=""),
    }
    kept, left_out = kept.copy(), dict.fromkeys(kinds, 0)
    changed = True
    while changed:  # what one kind leaves out changes the shares of the others
        changed = False
        for kind, codes in kinds.items():
            usual = in_history if kind == "payload" else np.zeros(int(codes.max()) + 1)
            if kind in ("client", "subject"):
                usual = _steady_shares(codes, times, kept)
            out = _beyond(codes, usual, kept, model.split.max_share)
            kept[out] = False
            left_out[kind] += len(out)
            changed |= len(out) > 0
    return kept, left_out


def _beyond(codes: Codes, usual: NDArray[np.float64], kept: Mask, max_share: float) -> Codes:
    """Return the positions of the rows beyond the shares of their contributors."""
    sizes = np.bincount(codes[kept & (codes >= 0)], minlength=len(usual))
    total = int(kept.sum())
    present = np.flatnonzero(sizes)
    allowed = {
        int(code): max_share + max(float(usual[code]), _median_of_others(sizes, present, code))
        for code in present[sizes[present] > max_share * total]
    }
    limits = _limits({code: int(sizes[code]) for code in allowed}, allowed, total)
    found = [
        _evenly_left_out(np.flatnonzero(kept & (codes == code)), limit)
        for code, limit in limits.items()
    ]
    return np.sort(np.concatenate(found)) if found else np.empty(0, dtype=np.int64)


def _limits(sizes: dict[int, int], allowed: dict[int, float], total: int) -> dict[int, int]:
    """Return how many rows each contributor may keep, of the rows that are then left."""
    others = total - sum(sizes.values())
    rows = total
    while True:
        limits = {code: min(size, int(allowed[code] * rows + 1e-9)) for code, size in sizes.items()}
        left = others + sum(limits.values())
        if left == rows:
            return limits
        rows = left


def _median_of_others(sizes: Codes, present: Codes, code: int) -> float:
    """Return the median share of all contributors but one; 0 without others."""
    others = sizes[present[present != code]]
    return float(np.median(others) / sizes.sum()) if len(others) else 0.0


def _steady_shares(codes: Codes, times: NDArray[np.float64], kept: Mask) -> NDArray[np.float64]:
    """Return the median of each contributor's shares of the stretches of time that have rows."""
    count = int(codes.max()) + 1
    if not kept.any():
        return np.zeros(count)
    begin, end = times[kept].min(), times[kept].max()
    length = (end - begin) / STRETCHES or 1.0
    stretch = np.minimum((times - begin) / length, STRETCHES - 1).astype(np.int64)
    rows = np.bincount(stretch[kept], minlength=STRETCHES)
    table = np.zeros((STRETCHES, count))
    named = kept & (codes >= 0)
    np.add.at(table, (stretch[named], codes[named]), 1.0)
    return np.asarray(np.median(table[rows > 0] / rows[rows > 0, np.newaxis], axis=0))


def _evenly_left_out(positions: Codes, limit: int) -> Codes:
    """Return the positions to leave out, so that ``limit`` of them stay at equal distances."""
    if not limit:
        return positions
    stay = np.linspace(0, len(positions) - 1, limit).round().astype(np.int64)
    return np.delete(positions, stay)


def _codes(names: Iterable[str] | NDArray[np.generic], none: str | None = None) -> Codes:
    values = pd.Series(list(names), dtype=object)
    return np.asarray(pd.factorize(values.mask(values == none, None))[0], dtype=np.int64)


def _numbers(
    old: "pd.Series[Any]", new: "pd.Series[Any]", *, categorical: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a column of the history and of the recent rows as numbers."""
    if categorical:
        codes = pd.factorize(pd.concat([old, new], ignore_index=True))[0]
        return codes[: len(old)].astype(float), codes[len(old) :].astype(float)
    return old.to_numpy(dtype=float), new.to_numpy(dtype=float)
