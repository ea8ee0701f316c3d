"""What is held out stays held out, and nothing is asked that was learned."""

import milling
import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from watchkeeper.training.declaration import Split
from watchkeeper.training.models import find
from watchkeeper.training.rows import Rows, usable
from watchkeeper.training.split import block_numbers, held_blocks, held_predictions, split

MODEL = find("ai4i-failure")


def rows(table: pd.DataFrame) -> Rows:
    return usable(table.rename(columns={"id": "key"}), MODEL, "a test")


def recent(count: int, seed: int, labelled: int) -> Rows:
    table = milling.pieces(count, seed, changed=True)
    table[milling.TARGET] = table[milling.TARGET].astype(float).where(table.index < labelled)
    return rows(table.assign(id=[f"{n:032x}" for n in table["id"]]))


def test_more_rows_change_nothing_for_old_ones() -> None:
    table = milling.pieces(8000)
    few = split(rows(table[:5000]), recent(800, 1, 500), MODEL)
    many = split(rows(table), recent(800, 1, 800), MODEL)
    assert set(few.train.key) <= set(many.train.key)
    assert set(few.held.key) <= set(many.held.key)
    assert set(few.recent_train.key) <= set(many.recent_train.key)
    assert set(few.recent_held.key) <= set(many.recent_held.key)


@settings(deadline=None)
@given(st.integers(4, 2000))
def test_the_held_out_share_is_even_over_few_blocks(blocks: int) -> None:
    held = held_blocks(np.arange(blocks), Split())
    assert abs(int(held.sum()) - 0.3 * blocks) < 2.5
    assert held.any()


def test_held_out_history_keeps_time_order_and_whole_blocks() -> None:
    parts = split(rows(milling.pieces(10_000)), recent(0, 1, 0), MODEL)
    assert len(parts.held) == 3000
    assert np.all(np.diff(parts.held.key.astype(int)) > 0)
    assert set(np.unique(block_numbers(parts.held.key, MODEL.split), return_counts=True)[1]) == {
        500
    }
    assert not set(parts.held.key) & set(parts.train.key)


def test_all_rows_of_a_request_are_on_the_same_side() -> None:
    ids = np.array([f"{n // 3:032x}" for n in range(3000)])
    held = held_predictions(ids, Split()).reshape(-1, 3)
    assert np.all(held.all(axis=1) == held.any(axis=1))
    assert abs(held.mean() - 0.4) < 0.05


def test_what_has_no_label_yet_is_neither_fitted_nor_judged_but_unseen() -> None:
    parts = split(rows(milling.pieces(3000)), recent(1000, 1, 600), MODEL)
    assert len(parts.recent_train) + len(parts.recent_held) == 600
    assert len(parts.unseen) == 400 + len(parts.recent_held)
    assert not set(parts.unseen.key) & set(parts.recent_train.key)
    assert list(parts.unseen.key) == sorted(parts.unseen.key)


def test_a_row_in_both_sources_is_used_once_and_not_asked_of_who_knows_it() -> None:
    table = milling.pieces(3000)
    again = table[:600].assign(id=[f"{n:032x}" for n in range(600)])
    unknown = split(rows(table), rows(again), MODEL, known_rows=0)
    known = split(rows(table), rows(again), MODEL, known_rows=3000)
    for parts in (unknown, known):
        assert min(*parts.train.key, *parts.held.key) > 600
    assert len(unknown.recent_held) > 200
    assert not len(known.recent_held)
    assert not len(known.unseen)
    assert len(known.recent_train) == len(unknown.recent_train)


def test_rows_that_no_request_could_have_are_left_out() -> None:
    table = milling.pieces(500)
    table.loc[3, "torque"] = np.nan
    table.loc[4, "air_temperature"] = -40.0
    table.loc[5, "type"] = None
    kept = rows(table)
    assert len(kept) == 497
    assert not {4, 5, 6} & set(kept.key)
