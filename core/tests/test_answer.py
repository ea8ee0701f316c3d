"""Labels and risk level of a score."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from watchkeeper.core.answer import RISK_LEVELS, AnswerPolicy, Label, Risk, answer, outputs_of
from watchkeeper.core.head import Head

HEADS = (
    Head("p", "p.skops", "predict_proba"),
    Head("normality", "normality.skops", "decision_function", task="anomaly"),
)
POLICY = AnswerPolicy((Label("failure", "p", 0.5),), Risk("p", medium=0.2, high=0.6))


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1))
def test_label_and_risk_level_follow_the_score(values: list[float]) -> None:
    outputs = answer({"p": np.array(values)}, HEADS[:1], POLICY)
    assert [output.name for output in outputs_of(HEADS[:1], POLICY)] == list(outputs)
    for score, label, risk in zip(values, outputs["failure"], outputs["risk_level"], strict=True):
        assert label == (score >= 0.5)
        assert risk == RISK_LEVELS[(score >= 0.2) + (score >= 0.6)]


@settings(deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1))
def test_a_hidden_score_is_computed_and_is_not_an_output(values: list[float]) -> None:
    odd = Label("odd", "normality", threshold=0.0, side="below")
    policy = AnswerPolicy((odd,), POLICY.risk, hidden=("normality",))
    scores = {"p": np.full(len(values), 0.1), "normality": np.array(values)}
    outputs = answer(scores, HEADS, policy)
    assert [o.name for o in outputs_of(HEADS, policy)] == ["p", "odd", "risk_level"]
    assert outputs["normality"].tolist() == values
    assert outputs["odd"].tolist() == [int(value < 0.0) for value in values]
