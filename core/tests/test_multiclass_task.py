"""The multi-class task: its metrics equal those of scikit-learn, and its comparison is honest."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from watchkeeper.core.head import Head
from watchkeeper.core.tasks import UnknownTaskError, task_of
from watchkeeper.core.tasks.base import InvalidLabelError, Labelled

CLASSES = ("ok", "worn", "broken")


def head(**changes: Any) -> Head:
    values = {"task": "multiclass", "label": "state", "classes": CLASSES, **changes}
    return Head("state", "state.skops", "predict_proba", **values)


TASK = task_of(head())


def labelled(target: Any, probabilities: Any) -> Labelled:
    return Labelled(target, TASK.columns(probabilities))


def drawn(random: np.random.Generator, rows: int, skill: float) -> Labelled:
    """Draw labels, and probabilities that are right more often with more skill."""
    target = random.choice(3, rows, p=[0.7, 0.2, 0.1]).astype(float)
    raw = random.gamma(1.0, size=(rows, 3))
    raw[np.arange(rows), target.astype(int)] += skill
    return labelled(target, raw / raw.sum(axis=1, keepdims=True))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(20, 80), st.sampled_from([0.0, 0.5, 2.0]))
def test_metrics_equal_those_of_scikit_learn(seed: int, rows: int, skill: float) -> None:
    found = drawn(np.random.default_rng(seed), rows, skill)
    values = np.stack([found.scores[name] for name in TASK.scores], axis=1)
    present, decided = np.unique(found.target), values.argmax(axis=1)
    measured = TASK.measure(found, seed=0)
    assert measured["accuracy"].value == pytest.approx(sk.accuracy_score(found.target, decided))
    recalls = sk.recall_score(
        found.target, decided, labels=present, average="macro", zero_division=0
    )
    assert measured["balanced_accuracy"].value == pytest.approx(recalls)
    f1 = sk.f1_score(found.target, decided, labels=present, average="macro", zero_division=0)
    assert measured["macro_f1"].value == pytest.approx(f1)
    loss = sk.log_loss(found.target, values, labels=[0, 1, 2])
    assert measured["log_loss"].value == pytest.approx(loss)


def test_the_answer_names_the_class_with_the_largest_score() -> None:
    scores = TASK.columns(np.array([[0.1, 0.8, 0.1], [0.4, 0.2, 0.4]]))
    assert list(scores) == ["state_ok", "state_worn", "state_broken"]
    assert TASK.answer(scores)["state"].tolist() == ["worn", "ok"]
    assert [output.categories for output in TASK.outputs] == [CLASSES]


def test_a_label_is_the_name_of_a_class() -> None:
    assert [TASK.code(name) for name in CLASSES] == [0.0, 1.0, 2.0]
    assert [TASK.name(code) for code in TASK.outcomes] == list(CLASSES)
    numbered = task_of(head(classes=("0", "1", "7")))
    assert [numbered.code(value) for value in (7, 7.0, "7", np.int64(7))] == [2.0] * 4


@pytest.mark.parametrize("label", ["OK", "", 0, 1.5, None, True, float("nan"), float("inf")])
def test_other_labels_are_refused(label: object) -> None:
    with pytest.raises(InvalidLabelError, match="one of the classes 'ok', 'worn', 'broken'"):
        TASK.code(label)


@pytest.mark.parametrize("classes", [(), ("one",), ("one", "one")])
def test_a_head_without_two_different_classes_is_refused(classes: tuple[str, ...]) -> None:
    with pytest.raises(UnknownTaskError, match=r"needs at least two, and each once"):
        task_of(head(classes=classes))


def test_an_equal_version_is_seldom_called_better_or_worse() -> None:
    random = np.random.default_rng(1)
    beyond = []
    for _ in range(300):
        one, other = drawn(random, 600, 1.0), drawn(random, 600, 1.0)
        found = TASK.unpaired(one, other)
        assert found is not None
        beyond.append(abs(found.value) > 1.96 * found.variance**0.5)
    assert 0.01 <= np.mean(beyond) <= 0.08


def test_pairs_show_a_smaller_difference_than_rows_of_their_own() -> None:
    random = np.random.default_rng(2)
    new = drawn(random, 800, 1.0)
    changed = {n: np.where(random.random(800) < 0.03, 0.0, x) for n, x in new.scores.items()}
    old = Labelled(new.target, changed)
    paired, unpaired = TASK.paired(new, old), TASK.unpaired(new, old)
    assert paired is not None
    assert unpaired is not None
    assert paired.value == pytest.approx(unpaired.value)
    assert paired.variance < unpaired.variance / 2


def test_too_few_labels_of_a_class_compare_nothing() -> None:
    random = np.random.default_rng(3)
    assert TASK.unpaired(drawn(random, 40, 1.0), drawn(random, 40, 1.0)) is None


def test_only_a_column_with_an_interval_for_each_class_separates_them() -> None:
    target = np.repeat([2.0, 0.0, 1.0], 40)
    copy = np.linspace(0.0, 1.0, 120)
    assert TASK.separation(target, copy).value == 1.0
    one_class_only = np.where(target == 2.0, -1.0, np.random.default_rng(0).random(120))
    assert (TASK.separation(target, one_class_only).value or 0.0) < 0.8


def test_the_rare_labels_are_those_outside_the_most_frequent_class() -> None:
    assert TASK.count_rare({0.0: 900, 1.0: 30, 2.0: 5}) == 35
    assert TASK.count_rare({}) == 0
