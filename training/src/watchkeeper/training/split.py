"""Stage 2, split: which rows are fitted and which are held out.

Only a row's id decides, or the id of the oldest row that must be on the same side. So new rows
never move an old row to the other side.
"""

import hashlib
from itertools import product
from typing import Any

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from watchkeeper.core.gate_report import Duplicates
from watchkeeper.training import CannotTrainError
from watchkeeper.training.declaration import Model, Split
from watchkeeper.training.declaration.rows import LARGEST_BLOCK
from watchkeeper.training.duplicates import find_duplicates, first_rows
from watchkeeper.training.rows import Rows

# Fibonacci hashing (Knuth, The Art of Computer Programming 3, 6.4): multiples of the golden
# ratio's fraction spread evenly, so that the share is right even with few blocks.
_GOLDEN = 0.6180339887498949
_OFFSET = 0.37

# Blocks that grow with the ids: a table of 200 rows has 20 of them, one of 10,000 rows about 100.
_SMALLEST, _LARGEST, _GROWTH = 10, LARGEST_BLOCK, 20


class Parts(msgspec.Struct, frozen=True):
    """The rows by their use; no row is in two parts, and no two equal rows are on both sides.

    ``train`` and ``recent_train`` are fitted. ``held`` is the held-out history. ``unseen`` are
    all recent rows that are not fitted, in time order, with a label or without. ``blocks``
    (rows of ``train``,) numbers the blocks that the folds of the search must not cut.
    ``duplicates`` counts equal rows.
    """

    train: Rows
    held: Rows
    recent_train: Rows
    unseen: Rows
    blocks: NDArray[np.int64]
    duplicates: dict[str, Duplicates]


def split(
    history: Rows,
    recent: Rows,
    model: Model,
    known_rows: int = 0,
    group_numbers: NDArray[np.int64] | None = None,
) -> Parts:
    """Split history and recent rows.

    Rows that belong together, because they are equal or of one declared group, are on the side of
    the oldest of them.

    A prediction whose row is also in the history is used once, as a recent row. If that row is
    among the oldest ``known_rows`` of the history, production was trained on it, and it is not
    held out: the comparison with production would be unfair.

    ``group_numbers`` (rows of the history,) numbers the declared groups by their first appearance,
    also in rows that were not read; without them, the rows of ``history`` are all there are.

    Raises:
        CannotTrainError: the history has too many duplicates, or is too small to have both
            outcomes in both of its parts.
    """
    rows, repeats = len(history), find_duplicates(history, recent, model)
    equal = first_rows([repeats.codes])
    copied = np.isin(equal[:rows], equal[rows:])
    fair = (equal[rows:] >= rows) | (equal[rows:] >= known_rows)
    names, groups = _names(recent), [repeats.codes]
    blocks = block_numbers(history.key, model.split)
    if model.split.group:
        groups.append(_codes(np.concatenate([_names(history), names])))
        blocks = _codes(history.group) if group_numbers is None else group_numbers
    together = first_rows(groups)
    blocks = blocks[together[:rows]]
    out = held_blocks(blocks, model.split)
    recent_out = held_predictions(names[first_rows([together[rows:]])], model.split)
    if model.split.group:
        with_history = together[rows:] < rows
        recent_out[with_history] = out[together[rows:][with_history]]
    # Without a truth, a fit learns what is usual, and a broken column is not.
    fits = recent.labelled() if model.truths else recent.typical.all(axis=1)
    parts = Parts(
        train=history.where(~out & ~copied),
        held=history.where(out & ~copied),
        recent_train=recent.where(fits & ~recent_out),
        unseen=recent.where((recent_out | ~fits) & fair),
        blocks=blocks[~out & ~copied],
        duplicates=repeats.counted,
    )
    _check_outcomes(parts, blocks, model)
    return parts


def thinned(parts: Parts, most: int, outcomes: tuple[float, ...]) -> Parts:
    """Return parts of which fitted and held-out rows of the history are at most ``most`` each.

    The rows of each outcome of the main head are spread evenly over time, and a rare outcome keeps
    up to its equal share. Without ``outcomes``, all rows are alike.
    """
    train, held = (_evenly(rows, most, outcomes) for rows in (parts.train, parts.held))
    return msgspec.structs.replace(
        parts,
        train=parts.train.where(train),
        held=parts.held.where(held),
        blocks=parts.blocks[train],
    )


def _evenly(rows: Rows, most: int, outcomes: tuple[float, ...]) -> NDArray[np.bool_]:
    """Return which rows (rows,) are kept."""
    chosen = np.zeros(len(rows), dtype=bool)
    groups = [np.flatnonzero(rows.target == outcome) for outcome in outcomes]
    groups += [np.flatnonzero(~np.isin(rows.target, outcomes))]  # all, or of another head's truth
    groups = sorted(groups, key=len)
    for number, places in enumerate(groups):
        count = min(len(places), (most - int(chosen.sum())) // (len(groups) - number))
        if count:
            chosen[places[np.linspace(0, len(places) - 1, count).astype(int)]] = True
    return chosen


def _check_outcomes(parts: Parts, blocks: NDArray[np.int64], model: Model) -> None:
    """Refuse a history of which one side lacks an outcome."""
    where = f"history of {model.name}"
    count = len(np.unique(blocks))
    size = model.split.block_rows
    what = f"{count} block(s) of {size or f'{_SMALLEST} to {_LARGEST}'} consecutive ids"
    advice = "load more, or declare a smaller split.block_rows"
    if model.split.group:
        what, advice = f"{count} group(s) of {model.split.group!r}", "load more groups"
    sides = (
        (parts.train, parts.held, "fitted", "training"),
        (parts.held, parts.train, "held out", "the gate"),
    )
    for truth, (one, other, side, use) in product(
        model.truths,
        sides,
    ):
        task, rows, others = truth.task, one.about(truth.name), other.about(truth.name)
        if not len(rows):
            raise CannotTrainError(
                f"{where}: {len(others)} rows with {truth.name!r} are too few: they are in {what}, "
                f"none of which is {side}, and {use} needs some; {advice}"
            )
        for outcome in task.outcomes:
            if not (rows.target == outcome).any():
                there = int((others.target == outcome).sum())
                outcome_name = task.name(outcome)
                raise CannotTrainError(
                    f"{where}: no row with {truth.name!r} = {outcome_name} is {side}, and {use} "
                    f"needs some: the {there} of them are clustered in few of the {what}; {advice}"
                )
    for one, other, side, use in sides:
        if not len(one):
            raise CannotTrainError(
                f"{where}: {len(other)} rows are too few: they are in {what}, none of which is "
                f"{side}, and {use} needs some; {advice}"
            )


def block_numbers(ids: NDArray[np.int64], rule: Split) -> NDArray[np.int64]:
    """Return the block number of each row id (rows,); ids begin at 1.

    Without a declared size a block has a twentieth of the rows before it, at least 10 and at most
    500. So the block of an id never changes when rows are added, and a small table has enough
    blocks.
    """
    before = ids.astype(np.int64) - 1
    if rule.block_rows:
        return before // rule.block_rows
    starts = _growing_blocks()
    numbers = np.searchsorted(starts, before, side="right") - 1
    beyond = (before - starts[-1]) // _LARGEST
    numbers = np.where(beyond > 0, len(starts) - 1 + beyond, numbers)
    return np.asarray(np.where(before < 0, before // _LARGEST, numbers), dtype=np.int64)


def _growing_blocks() -> NDArray[np.int64]:
    """Return where the growing blocks begin, counted from 0, up to the first of the largest."""
    starts = [0]
    while (size := max(_SMALLEST, starts[-1] // _GROWTH)) < _LARGEST:
        starts.append(starts[-1] + size)
    return np.array(starts, dtype=np.int64)


def held_blocks(blocks: NDArray[np.int64], rule: Split) -> NDArray[np.bool_]:
    """Return which rows of the history (rows,) are held out, by their block numbers."""
    return np.asarray((blocks * _GOLDEN + _OFFSET) % 1.0 < rule.held_out)


def held_predictions(ids: NDArray[np.str_], rule: Split) -> NDArray[np.bool_]:
    """Return which rows (rows,) are held out, by prediction id: all rows of a request or none."""
    share = (int(hashlib.sha256(str(x).encode()).hexdigest()[:8], 16) / 2**32 for x in ids)
    return np.fromiter(share, dtype=np.float64, count=len(ids)) < rule.recent_held_out


def _names(rows: Rows) -> NDArray[Any]:
    """Return what decides the side of each recent row (rows,): its group, or else its own key."""
    return np.where(rows.group == "", rows.key.astype(object), rows.group)


def _codes(names: NDArray[Any]) -> NDArray[np.int64]:
    """Number names (rows,) by their first appearance, so that new rows change no number."""
    return np.asarray(pd.factorize(names)[0], dtype=np.int64)
