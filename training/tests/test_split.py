"""Held-out rows stay held out, and no row is fitted and judged."""

import numpy as np
import pandas as pd
import pumps
from hypothesis import given, settings
from hypothesis import strategies as st

from watchkeeper.training.declaration import Split
from watchkeeper.training.models import find
from watchkeeper.training.rows import Rows
from watchkeeper.training.split import Parts, block_numbers, held_blocks, held_predictions, split
from watchkeeper.training.usable import usable

MODEL = find("pump-failure")


def rows(table: pd.DataFrame) -> Rows:
    return usable(table.set_index("id"), MODEL, "a test")


def recent(count: int, seed: int, labelled: int) -> Rows:
    table = pumps.readings(count, seed, changed=True)
    table[pumps.TARGET] = table[pumps.TARGET].astype(float).where(table.index < labelled)
    return rows(table.assign(id=[f"{n:032x}" for n in table["id"]]))


def labelled_unseen(parts: Parts) -> Rows:
    return parts.unseen.where(~np.isnan(parts.unseen.target))


def test_new_rows_do_not_move_old_ones() -> None:
    table = pumps.readings(8000)
    few = split(rows(table[:5000]), recent(800, 1, 500), MODEL)
    many = split(rows(table), recent(800, 1, 800), MODEL)
    assert set(few.train.key) <= set(many.train.key)
    assert set(few.held.key) <= set(many.held.key)
    assert set(few.recent_train.key) <= set(many.recent_train.key)
    assert set(labelled_unseen(few).key) <= set(labelled_unseen(many).key)


@settings(deadline=None)
@given(st.integers(4, 2000))
def test_the_held_out_share_is_even_over_few_blocks(blocks: int) -> None:
    held = held_blocks(np.arange(blocks), Split())
    assert abs(int(held.sum()) - 0.3 * blocks) < 2.5
    assert held.any()


def test_held_out_history_keeps_time_order_and_whole_blocks() -> None:
    parts = split(rows(pumps.readings(10_000)), recent(0, 1, 0), MODEL)
    assert len(parts.held) == 3000
    assert np.all(np.diff(parts.held.key.astype(int)) > 0)
    assert set(np.unique(block_numbers(parts.held.key, MODEL.split), return_counts=True)[1]) == {
        500
    }
    assert not set(parts.held.key) & set(parts.train.key)


def test_all_rows_of_a_request_are_in_the_same_part() -> None:
    ids = np.array([f"{n // 3:032x}" for n in range(3000)])
    held = held_predictions(ids, Split()).reshape(-1, 3)
    assert np.all(held.all(axis=1) == held.any(axis=1))
    assert abs(held.mean() - 0.4) < 0.05


def test_rows_without_a_label_are_unseen() -> None:
    parts = split(rows(pumps.readings(3000)), recent(1000, 1, 600), MODEL)
    assert len(parts.recent_train) + len(labelled_unseen(parts)) == 600
    assert len(parts.unseen) == 400 + len(labelled_unseen(parts))
    assert not set(parts.unseen.key) & set(parts.recent_train.key)
    assert list(parts.unseen.key) == sorted(parts.unseen.key)


def test_a_row_in_both_sources_is_used_once_and_never_judged_if_production_knows_it() -> None:
    table = pumps.readings(3000)
    again = table[:600].assign(id=[f"{n:032x}" for n in range(600)])
    unknown = split(rows(table), rows(again), MODEL, known_rows=0)
    known = split(rows(table), rows(again), MODEL, known_rows=3000)
    for parts in (unknown, known):
        assert min(*parts.train.key, *parts.held.key) > 600
    assert len(labelled_unseen(unknown)) > 200
    assert not len(labelled_unseen(known))
    assert not len(known.unseen)
    assert len(known.recent_train) == len(unknown.recent_train)


def test_rows_that_no_request_can_have_are_left_out() -> None:
    table = pumps.readings(500)
    table.loc[3, "load"] = np.nan
    table.loc[4, "inlet_temperature"] = -40.0
    table.loc[5, "grade"] = None
    usable_rows = rows(table)
    assert len(usable_rows) == 497
    assert not {4, 5, 6} & set(usable_rows.key)


@settings(deadline=None)
@given(st.integers(200, 1_000_000))
def test_the_default_holds_out_the_declared_share_of_any_table(count: int) -> None:
    numbers = block_numbers(np.arange(1, count + 1), Split())
    held = held_blocks(numbers, Split())
    assert abs(held.mean() - 0.3) < 0.05
    assert len(np.unique(numbers)) >= 20
    sizes = np.unique(numbers, return_counts=True)[1]
    assert sizes[:-1].min() == 10
    assert sizes.max() <= 500


def test_growing_blocks_have_no_gap_and_never_change() -> None:
    numbers = block_numbers(np.arange(-600, 30_000), Split())
    assert set(np.diff(numbers)) == {0, 1}
    few = block_numbers(np.arange(1, 500), Split())
    assert np.array_equal(few, block_numbers(np.arange(1, 100_000), Split())[:499])
