"""Columns that know the truth are refused or reported, and honest columns are not."""

from statistics import NormalDist

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchkeeper.core.signature import Column
from watchkeeper.training.declaration import DeclarationError
from watchkeeper.training.leakage import leakage
from watchkeeper.training.models import find
from watchkeeper.training.rows import Rows

PUMPS = find("pump-failure")
MODEL = msgspec.structs.replace(PUMPS, columns=(Column("load", "FP64"), Column("x", "FP64")))


def truth(
    count: int, share: float, seed: int = 0
) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    return (np.random.default_rng(seed).random(count) < share).astype(float)


def rows(target: "np.ndarray[tuple[int], np.dtype[np.float64]]", **columns: object) -> Rows:
    none = np.full(len(target), "", dtype=object)
    every = np.ones((len(target), len(columns)), dtype=bool)
    return Rows(pd.DataFrame(columns), target, np.arange(len(target)), none, every)


def examined(
    target: "np.ndarray[tuple[int], np.dtype[np.float64]]", x: object, seed: int = 0
) -> tuple[bool, list[str], str]:
    load = np.random.default_rng(seed + 77).normal(size=len(target))
    table = rows(target, load=load, x=x)
    held = np.arange(len(target)) % 2 == 0
    check, suspicions = leakage(MODEL, table.where(~held), table.where(held))
    return check.passed, suspicions, check.reason


@settings(deadline=None, max_examples=40)
@given(
    share=st.floats(0.08, 0.92),
    seed=st.integers(0, 1000),
    low=st.floats(-1e6, 1e6),
    step=st.floats(0.001, 1e6),
    rising=st.booleans(),
    noise=st.floats(0.0, 0.9),
)
def test_every_monotone_function_of_the_target_is_refused(
    *, share: float, seed: int, low: float, step: float, rising: bool, noise: float
) -> None:
    target = truth(1200, share, seed)
    within = np.random.default_rng(seed).random(1200) * noise * step
    x = low + step * (target if rising else -target) + within
    passed, _, reason = examined(target, x)
    assert not passed
    assert "column 'x' separates the outcomes" in reason
    assert "gate.allowed" in reason


def test_a_category_that_names_the_outcome_is_refused() -> None:
    target = truth(1200, 0.2)
    model = msgspec.structs.replace(
        MODEL, columns=(Column("load", "FP64"), Column("x", "BYTES", categories=("a", "b", "c")))
    )
    other = np.where(np.arange(1200) % 3 == 0, "b", "c")
    table = rows(
        target,
        load=np.random.default_rng(0).normal(size=1200),
        x=np.where(target == 1, "a", other).astype(object),
    )
    assert not leakage(model, table, table)[0].passed


def test_an_allowed_column_may_separate_the_outcomes() -> None:
    target = truth(1200, 0.2)
    gate = msgspec.structs.replace(MODEL.gate, allowed=("x",))
    model = msgspec.structs.replace(MODEL, gate=gate)
    table = rows(target, load=np.random.default_rng(0).normal(size=1200), x=target)
    check, suspicions = leakage(model, table, table)
    assert check.passed
    assert suspicions == []


def test_an_unknown_allowed_column_is_a_contradiction() -> None:
    gate = msgspec.structs.replace(PUMPS.gate, allowed=("lode",))
    with pytest.raises(DeclarationError, match=r"gate.allowed names 'lode'; columns are 'grade'"):
        msgspec.structs.replace(PUMPS, gate=gate)


def test_a_noisy_copy_is_a_suspicion() -> None:
    target = truth(4000, 0.3)
    wrong = truth(4000, 0.005, seed=1)
    passed, (suspicion,), _ = examined(target, np.abs(target - wrong))
    assert passed
    assert "column 'x' may know the truth" in suspicion


def test_a_copy_among_few_rows_is_a_suspicion() -> None:
    target = truth(200, 0.1)
    passed, (suspicion,), _ = examined(target, target)
    assert passed
    assert "column 'x'" in suspicion


@pytest.mark.parametrize("kind", [int, float])
def test_an_identifier_that_predicts_is_a_suspicion(kind: type) -> None:
    target = np.sort(truth(2000, 0.3))  # somebody has appended all failures at the end
    passed, suspicions, _ = examined(target + 0.0, np.arange(2000).astype(kind))
    assert not passed or "looks like an identifier" in suspicions[0]
    mixed = np.where(np.random.default_rng(0).random(2000) < 0.5, target, truth(2000, 0.3, 1))
    passed, (suspicion,), _ = examined(mixed, np.arange(2000).astype(kind))
    assert passed
    assert "column 'x' looks like an identifier and predicts" in suspicion


def test_an_identifier_that_predicts_nothing_is_none_of_the_gates_business() -> None:
    for seed in range(20):
        assert examined(truth(2000, 0.3, seed), np.arange(2000), seed)[:2] == (True, [])


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_columns_that_know_nothing_are_never_refused_nor_suspected(share: float) -> None:
    for seed in range(100):
        random = np.random.default_rng(seed)
        kinds = (random.normal(size=1000), random.integers(0, 3, 1000), np.ones(1000))
        for x in kinds:
            passed, suspicions, _ = examined(truth(1000, share, seed), x, seed)
            assert passed
            assert suspicions == []


@pytest.mark.parametrize(("area", "refused"), [(0.95, 0), (0.98, 1), (0.99, 6)])
@pytest.mark.parametrize("share", [0.05, 0.3])
def test_honest_columns_are_refused_at_the_stated_level(
    area: float, refused: int, share: float
) -> None:
    apart = NormalDist().inv_cdf(area) * 2**0.5
    count = 0
    for seed in range(300):
        target = np.zeros(800)
        target[: int(800 * share)] = 1.0
        target = np.random.default_rng(seed).permutation(target)
        x = np.random.default_rng(seed + 1).normal(size=800) + apart * target
        count += not examined(target, x, seed)[0]
    assert count <= refused
