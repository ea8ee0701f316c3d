"""Equal rows are found, counted and never on both sides of the split."""

import msgspec
import numpy as np
import pandas as pd
import pumps
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchkeeper.core.gate_report import HISTORY, RECENT
from watchkeeper.training import CannotTrainError
from watchkeeper.training.declaration import DeclarationError, Model, Split
from watchkeeper.training.duplicates import by_chance, equal_rows, find_duplicates, first_rows
from watchkeeper.training.fit import fit
from watchkeeper.training.judge import judge
from watchkeeper.training.models import find
from watchkeeper.training.rows import Rows
from watchkeeper.training.split import Parts, block_numbers, split
from watchkeeper.training.usable import usable

MODEL = find("pump-failure")


def rows(table: pd.DataFrame, model: Model = MODEL) -> Rows:
    return usable(table.set_index("id"), model, "a test")


def again(table: pd.DataFrame, share: float, seed: int = 0) -> pd.DataFrame:
    """Append a share of the rows once more, with new ids."""
    more = table.sample(frac=share, random_state=seed).sort_index()
    more["id"] = np.arange(len(more)) + int(table["id"].max()) + 1
    return pd.concat([table, more], ignore_index=True)


def predictions(table: pd.DataFrame, labelled: int) -> Rows:
    target = table[pumps.TARGET].astype(float).where(np.arange(len(table)) < labelled)
    return rows(table.assign(id=[f"{n:032x}" for n in range(len(table))], failed=target))


def no_rows() -> Rows:
    return predictions(pumps.readings(3), 0).where(np.zeros(3, dtype=bool))


def allowing(limit: float, **more: object) -> Model:
    declared = msgspec.structs.replace(MODEL.split, max_duplicates=limit, **more)
    return msgspec.structs.replace(MODEL, split=declared)


def features(part: Rows) -> set[tuple[object, ...]]:
    return set(part.columns.itertuples(index=False, name=None))


def assert_apart(parts: Parts) -> None:
    fitted = features(parts.train) | features(parts.recent_train)
    judged = features(parts.held) | features(parts.unseen.where(~np.isnan(parts.unseen.target)))
    assert not fitted & judged


@settings(deadline=None, max_examples=30)
@given(
    share=st.floats(0.0, 0.4),
    seed=st.integers(0, 1000),
    known=st.integers(0, 3000),
    labelled=st.integers(0, 400),
)
def test_no_row_is_equal_to_one_on_the_other_side(
    share: float, seed: int, known: int, labelled: int
) -> None:
    table = pumps.readings(3000, seed)
    seen = pd.concat([table.sample(200, random_state=seed), pumps.readings(100, seed + 1)])
    recent = predictions(pd.concat([seen, seen.sample(frac=share, random_state=1)]), labelled)
    parts = split(rows(again(table, share, seed)), recent, MODEL, known)
    assert_apart(parts)


def test_later_duplicates_do_not_move_old_rows() -> None:
    table = pumps.readings(4000)
    few = split(rows(table), no_rows(), MODEL)
    many = split(rows(again(table, 0.4)), no_rows(), MODEL)
    assert set(few.train.key) <= set(many.train.key)
    assert set(few.held.key) <= set(many.held.key)
    assert len(many.train) + len(many.held) == 5600


def test_folds_of_the_search_do_not_part_equal_rows() -> None:
    parts = split(rows(again(pumps.readings(4000), 0.4)), no_rows(), MODEL)
    blocks = pd.Series(parts.blocks).groupby(equal_rows(parts.train.columns)).nunique()
    assert blocks.max() == 1


def test_random_outcomes_do_not_pass_the_gate_because_rows_come_twice() -> None:
    random = np.random.default_rng(99)
    table = pumps.readings(3000).assign(failed=(random.random(3000) < 0.2).astype(int))
    parts = split(rows(again(table, 1.0)), no_rows(), allowing(0.6))
    parameters = msgspec.convert({"trees": 10}, MODEL.parameters)
    report = judge(
        MODEL,
        fit(MODEL, parameters, parts),
        None,
        [],
        duplicates=parts.duplicates,
        must_improve=False,
        seed=0,
    )
    assert not report.passed
    estimate = report.metrics[HISTORY]["roc_auc"]
    assert estimate.low is not None
    assert estimate.high is not None
    assert estimate.low < 0.5 < estimate.high + 0.03
    assert report.duplicates[HISTORY].repeated == 3000


@pytest.mark.parametrize("copies", [1, 2, 5])
def test_a_table_that_is_loaded_again_is_refused_with_share_limit_and_advice(copies: int) -> None:
    table = pd.concat([pumps.readings(3000)] * (copies + 1), ignore_index=True)
    table["id"] = np.arange(len(table)) + 1
    with pytest.raises(CannotTrainError) as refused:
        split(rows(table), no_rows(), MODEL)
    share = copies / (copies + 1)
    for words in (f"({share:.1%})", "split.max_duplicates allows 30.0% more", "loaded twice"):
        assert words in str(refused.value)
    split(rows(table), no_rows(), allowing(0.9))


@pytest.mark.parametrize(
    ("change", "equal"),
    [
        (lambda x: x.astype(np.float32).astype(float), 0.9),
        (lambda x: x * (1 + 1e-9), 0.99),
        (lambda x: x + 0.0, 1.0),
        (lambda x: x * (1 + 1e-4), 0.0),
    ],
)
def test_nearly_equal_rows_are_equal(change: object, equal: float) -> None:
    random = np.random.default_rng(0)
    table = pd.DataFrame(random.normal(20.0, 5.0, (5000, 3)), columns=["a", "b", "c"])
    codes = equal_rows(pd.concat([table, change(table)], ignore_index=True))  # type: ignore[operator]
    share = np.mean(codes[:5000] == codes[5000:])
    assert share >= equal if equal else share == 0.0


@settings(deadline=None)
@given(st.lists(st.floats(-1e30, 1e30).filter(lambda x: abs(x) > 1e-30), min_size=2, max_size=20))
def test_different_values_stay_different(values: list[float]) -> None:
    codes = equal_rows(pd.DataFrame({"x": values}))
    for one, first in zip(codes, values, strict=True):
        for other, second in zip(codes, values, strict=True):
            if abs(first - second) > 2e-6 * max(abs(first), abs(second)):
                assert one != other
            elif first == second:
                assert one == other


def coarse(count: int, columns: int, levels: int, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame({f"c{n}": random.integers(0, levels, count) for n in range(columns)})


@pytest.mark.parametrize(("columns", "levels"), [(1, 2), (2, 3), (3, 4), (1, 300), (4, 5)])
def test_duplicates_of_coarse_columns_are_expected(columns: int, levels: int) -> None:
    for seed in range(5):
        table = coarse(3000, columns, levels, seed)
        excess = (3000 - len(table.drop_duplicates())) / 3000 - by_chance(table)
        assert abs(excess) < 0.05


def one_column(values: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> Rows:
    none = np.full(len(values), "", dtype=object)
    target = np.random.default_rng(5).integers(0, 2, len(values)).astype(float)
    every = np.ones((len(values), 1), dtype=bool)
    return Rows(pd.DataFrame({"x": values}), target, np.arange(1, len(values) + 1), none, every)


@pytest.mark.parametrize("levels", [3, 30, 100, 300, 600, 1200])
@pytest.mark.parametrize("kind", ["uniform", "normal", "geometric"])
def test_a_coarse_column_is_split_by_blocks(levels: int, kind: str) -> None:
    """From three rows of a value up to a thousand."""
    for seed in range(5):
        random = np.random.default_rng(seed)
        values = {
            "uniform": random.integers(0, levels, 3600),
            "normal": (random.normal(size=3600) * levels / 6).round(),
            "geometric": random.geometric(3 / levels, 3600).clip(0, levels),
        }[kind].astype(float)
        history = one_column(values)
        parts = split(history, history.where(values == np.inf), MODEL)
        assert list(np.unique(block_numbers(parts.held.key, MODEL.split))) == [3, 6]


@pytest.mark.parametrize("copies", [2, 3, 5, 8, 15])
@pytest.mark.parametrize("new", [0, 50])
def test_a_column_that_is_loaded_again_is_not_coarse(copies: int, new: int) -> None:
    random = np.random.default_rng(0)
    once = random.normal(size=4000)
    history = one_column(np.concatenate([*[once] * copies, random.normal(size=new)]))
    parts = split(history, history.where(history.target > 1), allowing(0.99))
    assert_apart(parts)
    assert len(parts.held) == pytest.approx(0.3 * len(history), rel=0.3)
    with pytest.raises(CannotTrainError, match="loaded twice"):
        split(history, history.where(history.target > 1), MODEL)


@pytest.mark.parametrize("levels", [1, 2, 4])
def test_a_table_with_few_different_rows_is_split_by_blocks(levels: int) -> None:
    table = pumps.readings(3000)
    constant = dict.fromkeys(pumps.NUMERIC, 300.0)
    table = table.assign(**constant | {"load": np.arange(3000) % levels})
    parts = split(rows(table), no_rows(), MODEL)
    assert list(parts.held.key) == list(range(1501, 2001))
    assert parts.duplicates[HISTORY].share > 0.99


def test_equal_rows_that_are_declared_as_observations_are_split_by_blocks() -> None:
    table = again(pumps.readings(3000), 1.0)
    parts = split(rows(table), no_rows(), allowing(1.0))
    assert len(parts.held) == len(split(rows(pumps.readings(6000)), no_rows(), MODEL).held)
    assert parts.duplicates[HISTORY].repeated == 3000


@pytest.mark.parametrize("seed", range(10))
def test_tables_of_different_rows_have_no_duplicates(seed: int) -> None:
    found = find_duplicates(rows(pumps.readings(3000, seed)), no_rows(), MODEL).counted
    assert found[HISTORY].repeated == 0


def test_a_repeated_request_does_not_refuse_a_run_and_is_counted() -> None:
    table = pumps.readings(3000)
    load_test = predictions(pd.concat([pumps.readings(1, seed=9)] * 1000), 1000)
    parts = split(rows(table), load_test, MODEL)
    assert parts.duplicates[RECENT].repeated == 999
    assert {len(parts.recent_train), len(parts.unseen)} == {0, 1000}


def grouped(count: int = 4000, groups: int = 40) -> tuple[Model, pd.DataFrame]:
    return allowing(0.3, group="pump"), pumps.readings(count).assign(
        pump=[f"pump-{n % groups}" for n in range(count)]
    )


def test_all_rows_of_a_declared_group_are_on_one_side() -> None:
    model, table = grouped()
    seen = pumps.readings(800, seed=3)
    subjects = [f"pump-{n % 60}" for n in range(800)]  # of 20 the history knows nothing
    recent = rows(seen.assign(pump=subjects, id=[f"{n:032x}" for n in range(800)]), model)
    parts = split(rows(again(table, 0.1), model), recent, model)
    fitted = set(parts.train.group) | set(parts.recent_train.group)
    assert not fitted & (set(parts.held.group) | set(parts.unseen.group))
    assert len(parts.held) == pytest.approx(0.3 * 4400, abs=600)
    assert 0 < len(parts.unseen) < 800


def test_new_groups_do_not_move_old_ones() -> None:
    model, table = grouped()
    few = split(rows(table[:2000], model), no_rows(), model)
    new = pumps.readings(500, seed=4).assign(pump="pump-new", id=np.arange(5001, 5501))
    many = split(rows(pd.concat([table, new]), model), no_rows(), model)
    assert set(few.held.group) <= set(many.held.group)
    assert set(few.train.group) <= set(many.train.group)


def test_predictions_without_a_subject_are_no_group() -> None:
    model, table = grouped()
    seen = pumps.readings(600, seed=3).assign(pump="", id=[f"{n:032x}" for n in range(600)])
    parts = split(rows(table, model), rows(seen, model), model)
    assert len(parts.unseen) == pytest.approx(240, abs=60)


def test_one_group_is_too_few() -> None:
    model, table = grouped(groups=1)
    with pytest.raises(CannotTrainError, match=r"1 group\(s\) of 'pump', none of which is held"):
        split(rows(table, model), no_rows(), model)


@pytest.mark.parametrize("name", ["held_out", "recent_held_out", "max_duplicates"])
def test_a_share_beyond_one_is_refused(name: str) -> None:
    with pytest.raises(DeclarationError, match=f"{name} is 1.5"):
        Split(**{name: 1.5})


def test_the_sign_of_zero_makes_no_difference() -> None:
    assert len(set(equal_rows(pd.DataFrame({"x": [0.0, -0.0]})))) == 1


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=30))
def test_chains_of_connected_rows_have_one_first_row(pairs: list[tuple[int, int]]) -> None:
    first = first_rows([np.array(codes) for codes in zip(*pairs, strict=True)])
    for row, (one, other) in enumerate(pairs):
        assert first[row] <= row
        assert first[first[row]] == first[row]
        for before, codes in enumerate(pairs[:row]):
            if one == codes[0] or other == codes[1]:
                assert first[row] == first[before]
    # A row with its own first row is connected with no row before it.
    assert len(set(first)) == len({_class(pairs, row) for row in range(len(pairs))})


def _class(pairs: list[tuple[int, int]], row: int) -> frozenset[int]:
    found, new = {row}, {row}
    while new:
        new = {
            n
            for n, codes in enumerate(pairs)
            if n not in found
            and any(codes[0] == pairs[m][0] or codes[1] == pairs[m][1] for m in found)
        }
        found |= new
    return frozenset(found)
