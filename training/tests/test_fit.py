"""SMOTE, outliers and search touch training folds only, and mean what they say."""

import milling
import msgspec
import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier

from watchkeeper.training.balance import balanced
from watchkeeper.training.declaration import Balance, Outliers
from watchkeeper.training.fit import clipped, fit_head, scores, search
from watchkeeper.training.judge import judge
from watchkeeper.training.models import find
from watchkeeper.training.rows import Rows, usable
from watchkeeper.training.split import split

MODEL = find("ai4i-failure")
HEAD = MODEL.heads[0]
SMALL = msgspec.convert({"trees": 10}, MODEL.parameters)


def rows(count: int, seed: int = 0, *, changed: bool = False) -> Rows:
    table = milling.pieces(count, seed, changed=changed).rename(columns={"id": "key"})
    return usable(table, MODEL, "a test")


def none() -> Rows:
    return rows(10).where(np.zeros(10, dtype=bool))


def test_made_up_positives_are_possible_pieces_between_real_ones() -> None:
    real = rows(3000)
    columns, target = balanced(real.columns, real.target, MODEL, seed=1)
    made = columns.iloc[len(real) :]
    assert columns.iloc[: len(real)].equals(real.columns)
    assert target[len(real) :].all()
    assert target.sum() == pytest.approx(0.2 * (1 - real.target).sum(), abs=1)
    assert set(made["type"]) <= {"L", "M", "H"}
    positive = real.columns[real.target == 1]
    for name in milling.MEASURED[1:]:
        assert made[name].between(positive[name].min() - 1e-9, positive[name].max() + 1e-9).all()


@pytest.mark.parametrize("positives", [0, 1, 2, 4])
def test_few_positives_are_no_reason_to_fail(positives: int) -> None:
    real = rows(300)
    target = np.zeros(300)
    target[:positives] = 1.0
    _, outcome = balanced(real.columns, target, MODEL, seed=1)
    assert outcome.sum() >= positives


def test_enough_positives_are_left_as_they_are() -> None:
    real = rows(300)
    target = (np.arange(300) % 2).astype(float)
    assert balanced(real.columns, target, MODEL, seed=1)[0] is real.columns


def test_without_categories_plain_smote_is_taken() -> None:
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


def test_held_out_rows_change_nothing_of_what_is_learned() -> None:
    history = milling.pieces(3000).rename(columns={"id": "key"})
    parts = split(usable(history, MODEL, "a test"), none(), MODEL)
    other = history.copy()
    held = history["key"].isin(parts.held.key)
    other.loc[held, milling.TARGET] = 1 - other.loc[held, milling.TARGET]
    other.loc[held, "torque"] *= 2
    again = split(usable(other, MODEL, "a test"), none(), MODEL)
    asked = rows(500, seed=3)
    one, two = (
        scores(MODEL.heads, {HEAD.score: fit_head(HEAD, MODEL, SMALL, p.train, none())}, asked)
        for p in (parts, again)
    )
    assert np.array_equal(one[HEAD.score], two[HEAD.score])


def test_recent_rows_weigh_as_much_as_declared_however_few_they_are() -> None:
    old, new = rows(3000), rows(300, seed=2, changed=True)
    fresh = rows(2000, seed=3, changed=True)

    def separates(weight: float) -> float:
        model = msgspec.structs.replace(MODEL, recent_weight=weight)
        found = scores(MODEL.heads, {HEAD.score: fit_head(HEAD, model, SMALL, old, new)}, fresh)[
            HEAD.score
        ]
        return float(found[fresh.target == 1].mean() - found[fresh.target == 0].mean())

    assert separates(1.0) > separates(0.01)


def test_the_search_tries_what_is_declared_and_leaves_the_users_word() -> None:
    parts = split(rows(3000), none(), MODEL)
    best, tried = search(HEAD, MODEL, SMALL, frozenset(), parts)
    assert [one.parameters for one in tried] == list(MODEL.search.candidates)
    assert msgspec.to_builtins(best)["leaf"] in (2, 5)
    assert msgspec.to_builtins(best)["trees"] == 10
    assert search(HEAD, MODEL, SMALL, frozenset({"leaf"}), parts) == (SMALL, [])


@pytest.mark.parametrize("together", [True, False])
def test_a_handful_of_positives_is_fitted_and_judged(together: bool) -> None:
    """Where they are near each other, a fold has none; it is left out and the search with it."""
    history = rows(4000)
    target = np.zeros(len(history))
    out = split(history, none(), MODEL).held.key
    held = np.isin(history.key, out)
    target[np.flatnonzero(held)[:2]] = 1.0
    target[np.flatnonzero(~held)[:: 1 if together else 500][:4]] = 1.0
    few = msgspec.structs.replace(history, target=target)
    parts = split(few, none(), MODEL)
    _, tried = search(HEAD, MODEL, SMALL, frozenset(), parts)
    assert len(tried) == (0 if together else 2)
    pipelines = {HEAD.score: fit_head(HEAD, MODEL, SMALL, parts.train, none())}
    report = judge(MODEL, parts, pipelines, None, must_improve=True, seed=0)
    low = report.metrics["history"]["roc_auc"].low
    assert low is not None
    assert 0.0 <= low <= 1.0


def test_the_same_rows_and_seed_make_the_same_version() -> None:
    frames = [
        pd.DataFrame(
            scores(
                MODEL.heads,
                {HEAD.score: fit_head(HEAD, MODEL, SMALL, rows(1500), rows(200, changed=True))},
                rows(300, seed=4),
            )
        )
        for _ in range(2)
    ]
    assert frames[0].equals(frames[1])
