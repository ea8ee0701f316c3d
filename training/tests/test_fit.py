"""Fit: SMOTE, clipping, weights of recent rows, few positives."""

from pathlib import Path

import msgspec
import numpy as np
import pumps
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import Pipeline

from watchkeeper.training.balance import balanced
from watchkeeper.training.declaration import Balance, Model, Outliers
from watchkeeper.training.fit import clipped, fit, fit_head, score_head
from watchkeeper.training.judge import judge
from watchkeeper.training.models import find
from watchkeeper.training.rows import Rows
from watchkeeper.training.search import search
from watchkeeper.training.split import block_numbers, split
from watchkeeper.training.usable import usable

MODEL = find("pump-failure")
HEAD = MODEL.main_head
SMALL = msgspec.convert({"trees": 10}, MODEL.parameters)


def rows(count: int, seed: int = 0, *, changed: bool = False) -> Rows:
    table = pumps.readings(count, seed, changed=changed).set_index("id")
    return usable(table, MODEL, "a test")


def no_rows() -> Rows:
    return rows(10).where(np.zeros(10, dtype=bool))


def fitted(old: Rows, recent: Rows, model: Model = MODEL) -> Pipeline:
    blocks = block_numbers(old.key, model.split)
    return fit_head(HEAD, model, SMALL, old, recent, blocks=blocks)


def test_synthetic_positives_are_valid_rows_between_real_ones() -> None:
    real = rows(3000)
    columns, target = balanced(real.columns, real.target, MODEL, seed=1)
    synthetic = columns.iloc[len(real) :]
    assert columns.iloc[: len(real)].equals(real.columns)
    assert target[len(real) :].all()
    assert target.sum() == pytest.approx(0.2 * (1 - real.target).sum(), abs=1)
    assert set(synthetic["grade"]) <= {"L", "M", "H"}
    positive = real.columns[real.target == 1]
    for name in pumps.NUMERIC:
        assert (
            synthetic[name].between(positive[name].min() - 1e-9, positive[name].max() + 1e-9).all()
        )


@pytest.mark.parametrize("positives", [0, 1, 2, 4])
def test_few_positives_are_accepted(positives: int) -> None:
    real = rows(300)
    target = np.zeros(300)
    target[:positives] = 1.0
    _, outcome = balanced(real.columns, target, MODEL, seed=1)
    assert outcome.sum() >= positives


def test_enough_positives_get_no_synthetic_rows() -> None:
    real = rows(300)
    target = (np.arange(300) % 2).astype(float)
    assert balanced(real.columns, target, MODEL, seed=1)[0] is real.columns


def test_without_categories_plain_smote_is_used() -> None:
    numeric = msgspec.structs.replace(MODEL, columns=MODEL.columns[1:], balance=Balance(0.5))
    real = rows(2000)
    columns, target = balanced(real.columns[numeric.names], real.target, numeric, seed=1)
    assert list(columns) == numeric.names
    assert target.mean() == pytest.approx(1 / 3, abs=0.01)


def test_clipping_in_training_equals_clipping_when_served() -> None:
    random = np.random.default_rng(0)
    train = random.standard_cauchy((800, 3))
    target = (train.sum(axis=1) > 0).astype(int)
    bounded = clipped(train, train, Outliers(factor=1.5))
    assert np.abs(bounded).max() < np.abs(train).max() / 10
    forest = RandomForestClassifier(20, random_state=0).fit(bounded, target)
    served = random.standard_cauchy((2000, 3)) * 50
    low, high = bounded.min(axis=0), bounded.max(axis=0)
    assert np.array_equal(
        forest.predict_proba(served), forest.predict_proba(np.clip(served, low, high))
    )


def test_a_feature_without_spread_is_not_clipped_away() -> None:
    rare = np.zeros((100, 1))
    rare[:10] = 1.0
    assert np.array_equal(clipped(rare, rare, Outliers()), rare)


def test_held_out_rows_do_not_change_the_fit() -> None:
    history = pumps.readings(3000).set_index("id")
    parts = split(usable(history, MODEL, "a test"), no_rows(), MODEL)
    other = history.copy()
    held = history.index.isin(parts.held.key)
    other.loc[held, pumps.TARGET] = 1 - other.loc[held, pumps.TARGET]
    other.loc[held, "load"] *= 2
    again = split(usable(other, MODEL, "a test"), no_rows(), MODEL)
    asked = rows(500, seed=3)
    one, two = (score_head(HEAD, fitted(p.train, no_rows()), asked) for p in (parts, again))
    assert np.array_equal(one[HEAD.score], two[HEAD.score])


def test_few_recent_rows_have_the_declared_weight() -> None:
    old, new = rows(3000), rows(300, seed=2, changed=True)
    fresh = rows(2000, seed=3, changed=True)

    def separates(weight: float) -> float:
        model = msgspec.structs.replace(MODEL, recent_weight=weight)
        found = score_head(HEAD, fitted(old, new, model), fresh)[HEAD.score]
        return float(found[fresh.target == 1].mean() - found[fresh.target == 0].mean())

    assert separates(1.0) > separates(0.01)


@pytest.mark.parametrize("together", [True, False])
def test_few_positives_are_fitted_and_judged(together: bool, tmp_path: Path) -> None:
    """In neighbouring blocks they leave a fold without positives; the search is skipped."""
    history = rows(4000)
    target = np.zeros(len(history))
    out = split(history, no_rows(), MODEL).held.key
    held = np.isin(history.key, out)
    target[np.flatnonzero(held)[:2]] = 1.0
    target[np.flatnonzero(~held)[:: 1 if together else 500][:4]] = 1.0
    few = msgspec.structs.replace(history, target=target)
    parts = split(few, no_rows(), MODEL)
    trials = search(MODEL, SMALL, frozenset(), parts, tmp_path).trials
    assert len(trials) == (0 if together else 3)
    report = judge(
        MODEL, fit(MODEL, SMALL, parts), None, trials, must_improve=True, seed=0, duplicates={}
    )
    low = report.metrics["history"]["roc_auc"].low
    assert low is not None
    assert 0.0 <= low <= 1.0


def test_the_same_rows_and_seed_make_the_same_version() -> None:
    first, second = (
        score_head(
            HEAD,
            fitted(rows(1500), rows(200, changed=True)),
            rows(300, seed=4),
        )
        for _ in range(2)
    )
    assert np.array_equal(first[HEAD.score], second[HEAD.score])
