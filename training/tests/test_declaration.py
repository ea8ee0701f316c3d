"""Declarations: contradictions are refused, with the names that may be used."""

import math
from typing import Annotated, Any

import msgspec
import pump_failure
import pytest
from pump_risk import MODEL as TWO_HEADS
from sklearn.preprocessing import StandardScaler

from watchkeeper.core.answer import Label, Risk
from watchkeeper.training import CannotTrainError, models
from watchkeeper.training.declaration import (
    Choice,
    DeclarationError,
    Gate,
    Head,
    Integer,
    Parameters,
    Real,
    Search,
)

ANSWER = TWO_HEADS.answer
SUPERVISED, UNSUPERVISED = TWO_HEADS.heads


def replaced(value: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(value, **changes)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"answer": replaced(ANSWER, hidden=("oddity",))},
            "answer.hidden names 'oddity'; scores are 'failure_probability', 'anomaly'",
        ),
        (
            {"answer": replaced(ANSWER, risk=Risk("risk", 0.1, 0.2))},
            "answer.risk.score names 'risk'",
        ),
        (
            {"answer": replaced(ANSWER, labels=(Label("flag", "normality"),))},
            "label 'flag' names 'normality'; scores are",
        ),
        (
            {"gate": replaced(TWO_HEADS.gate, max_label_rate={"odd": 0.1})},
            "gate.max_label_rate names 'odd'; labels are 'anomaly_flag'",
        ),
        ({"heads": ()}, "heads has none, and a model needs one"),
        (
            {"heads": (UNSUPERVISED,), "search": Search({"seed": Integer(0, 2)})},
            "search compares parameters by a truth, and no head has a label",
        ),
        ({"heads": (UNSUPERVISED,)}, "gate.floors name .*higher is better are none"),
        (
            {"heads": (SUPERVISED, replaced(UNSUPERVISED, label="failed"))},
            "'failed': each label can be the truth of one head only",
        ),
        (
            {"heads": (replaced(SUPERVISED, label="load"), UNSUPERVISED)},
            "its label 'load' is also a request column",
        ),
        (
            {"heads": (SUPERVISED, replaced(UNSUPERVISED, score="wear"))},
            "'wear': columns, scores and outputs must have different names",
        ),
        (
            {"search": Search({"tree": Integer(5, 9)})},
            "search.space names 'tree'; parameters are 'onnx', 'search', 'seed', 'adopt'",
        ),
        (
            {"search": Search(cheaper={"tree": 5})},
            "search.cheaper names 'tree'; parameters are 'onnx'",
        ),
        ({"search": Search(cheaper={"seed": "many"})}, "search.cheaper: .*Expected `int`"),
        (
            {"search": Search({"seed": Integer(0, 9)}, cheaper={"seed": 1})},
            "search.cheaper replaces 'seed'",
        ),
        (
            {"search": Search({"seed": Integer(0, 9)}, first=({"leaf": 1},))},
            "search.first names 'leaf'; search.space has 'seed'",
        ),
        (
            {"search": Search({"seed": Integer(0, 9)}, first=({"seed": 10},))},
            r"search.first: 'seed' = 10 is not in Integer\(low=0, high=9",
        ),
        (
            {"search": Search({"seed": Real(0.0, 9.0)})},
            r"search.space: 'seed' cannot have all values of Real\(.*Expected `int`",
        ),
        (
            {"search": Search({"onnx": Choice("on", "maybe")})},
            r"search.space: 'onnx' cannot have all values of Choice\('on', 'maybe'\)",
        ),
        (
            {"search": Search({"seed": Integer(1, 9)})},
            "search.space: 'seed' has the default 0, which is not in Integer",
        ),
    ],
)
def test_a_contradiction_is_refused_with_the_known_names(
    wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(DeclarationError, match=message):
        replaced(TWO_HEADS, **wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ceilings": {"log_loss": -1.0}}, "ceiling of 'log_loss' is -1; it must be a number"),
        ({"floors": {"roc_auc": 90.0}}, "floor of 'roc_auc' is 90; it must be from 0 to 1"),
        ({"floors": {}, "max_label_rate": {"flag": -0.1}}, "max_label_rate of 'flag' is -0.1"),
        ({"floors": {}, "margin": -0.1}, "margin is -0.1"),
    ],
)
def test_the_gate_refuses_impossible_limits(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        Gate(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"trials": 1}, "search: trials is 1; it must be at least 2"),
        ({"folds": 1}, "search: folds is 1; it must be at least 2"),
        ({"workers": 0}, "search: workers is 0; it must be at least 1"),
        ({"trials": 2, "first": ({}, {})}, "search: trials is 2; .*are 3 trials already"),
        ({"space": {"leaf": Integer(5, 5)}}, "space of 'leaf' is .*: low must be below high"),
        ({"space": {"leaf": Integer(1.5, 5)}}, "space of 'leaf' is .*: .*whole numbers"),
        ({"space": {"rate": Real(0.0, 1.0, log=True)}}, "space of 'rate' is .*: low must be above"),
        ({"space": {"rate": Real(0.0, math.inf)}}, "space of 'rate' is .*must be finite"),
        ({"space": {"kind": Choice("gini")}}, "space of 'kind' is .*: needs different values"),
        ({"space": {"kind": Choice("a", "a")}}, "space of 'kind' is .*: needs different values"),
        ({"space": {"kind": Choice("a", ())}}, "space of 'kind' is .*: values must be texts"),
        ({"space": {"kind": Choice(math.nan, 1.0)}}, "space of 'kind' is .*: .*must be finite"),
        ({"space": {"kind": Choice(1, 10**400)}}, "space of 'kind' is .*: .*must be finite"),
        ({"space": {"leaf": (1, 20)}}, "space of 'leaf' must be an Integer, Real or Choice; it is"),
        ({"space": {"leaf": Integer(1, 2**60)}}, "space of 'leaf' is .*: .* at most 2.*53"),
        ({"space": {"leaf": Integer(1, 9, "yes")}}, "space of 'leaf' is .*: log must be True or"),
        ({"space": {"rate": Real("1", 3)}}, "space of 'rate' is .*: low and high must be numbers"),
        ({"space": {"rate": Real(False, 1)}}, "space of 'rate' is .*: .* must be numbers"),
        ({"space": {"rate": Real(0, 10**400)}}, "space of 'rate' is .*: .*must be finite"),
        ({"space": {"rate": Real(-1e308, 1e308)}}, "space of 'rate' is .*: high - low must be"),
        ({"space": [("leaf", Integer(1, 9))]}, "search: space is .*; it must be a dict"),
        ({"cheaper": "trees"}, "search: cheaper is 'trees'; it must be a dict"),
        ({"first": {"leaf": 5}}, "search: first is {'leaf': 5}; it must be a tuple of dicts"),
        ({"trials": "5"}, "search: trials is '5'; it must be a whole number"),
        ({"folds": 2.5}, "search: folds is 2.5; it must be a whole number"),
        ({"workers": True}, "search: workers is True; it must be a whole number"),
    ],
)
def test_a_search_that_cannot_try_anything_is_refused_with_its_field(
    wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(DeclarationError, match=message):
        Search(**wrong)


def test_a_range_outside_of_the_bounds_of_the_parameter_names_both() -> None:
    class Bounded(Parameters, frozen=True):
        leaf: Annotated[int, msgspec.Meta(ge=1, le=50)] = 2

    for within, bound in ((Integer(0, 20), ">= 1"), (Integer(1, 51), "<= 50")):
        message = rf"search.space: 'leaf' cannot have all values of .*Expected `int` {bound}"
        with pytest.raises(DeclarationError, match=message):
            replaced(TWO_HEADS, parameters=Bounded, search=Search({"leaf": within}))


def test_a_wrong_declaration_cannot_be_trained() -> None:
    """No later attempt would succeed, so the error must not be one that is tried again."""
    with pytest.raises(CannotTrainError, match=r"floors name 'auc'; metrics of which .*'roc_auc'"):
        models.find("contradiction")


def test_an_entry_point_must_name_a_model_of_the_same_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = msgspec.structs.replace(pump_failure.MODEL, name="other")
    monkeypatch.setattr(pump_failure, "MODEL", other)
    with pytest.raises(CannotTrainError, match=r"not a declaration\.Model with that name"):
        models.find("pump-failure")


def test_the_head_with_a_label_is_the_main_head() -> None:
    assert TWO_HEADS.main_head.score == "failure_probability"
    assert TWO_HEADS.target == "failed"
    assert not UNSUPERVISED.supervised
    assert not Head("score", lambda _: StandardScaler(), lambda _: StandardScaler()).supervised


def test_positive_means_the_threshold_of_the_scores_label_or_high_risk() -> None:
    assert TWO_HEADS.threshold(SUPERVISED) == 0.599
    own = (Label("failure", "failure_probability", threshold=0.3), *ANSWER.labels)
    labelled = replaced(ANSWER, labels=own)
    assert replaced(TWO_HEADS, answer=labelled).threshold(SUPERVISED) == 0.3
    elsewhere = replaced(ANSWER, risk=Risk("anomaly", 0.1, 0.2))
    assert replaced(TWO_HEADS, answer=elsewhere).threshold(SUPERVISED) == 0.5
