"""Every value that a user can set is described where it is declared."""

from typing import Annotated

import msgspec
import pytest
from msgspec import Meta

from watchkeeper.core.answer import AnswerPolicy, Label, Risk
from watchkeeper.core.field_docs import FieldDoc, describe_fields, field_table, undescribed_fields
from watchkeeper.core.policies import DriftPolicy, RetentionPolicy, RolloutPolicy, override


class PumpPolicy(msgspec.Struct):
    inlet: Annotated[str, Meta(description="Name of the inlet.")]
    pressure: Annotated[float, Meta(description="Pressure, in bar.", gt=0, le=16)] = 2.5
    grades: list[int] = []


@pytest.mark.parametrize(
    "struct", [DriftPolicy, RolloutPolicy, RetentionPolicy, AnswerPolicy, Label, Risk]
)
def test_every_policy_value_is_described(struct: type[msgspec.Struct]) -> None:
    assert undescribed_fields(struct) == []


def test_a_field_is_described_with_type_default_and_rule() -> None:
    assert describe_fields(PumpPolicy) == [
        FieldDoc("inlet", "text", None, "", "Name of the inlet."),
        FieldDoc("pressure", "number", "2.5", "more than 0, at most 16", "Pressure, in bar."),
        FieldDoc("grades", "list of integer", "[]", "", ""),
    ]
    assert undescribed_fields(PumpPolicy) == ["grades"]
    assert field_table(PumpPolicy, "grades").splitlines() == [
        "| field | type | default | rule | meaning |",
        "| --- | --- | --- | --- | --- |",
        "| `inlet` | text |  |  | Name of the inlet. |",
        "| `pressure` | number | `2.5` | more than 0, at most 16 | Pressure, in bar. |",
    ]


@pytest.mark.parametrize(
    ("policy", "name", "value"),
    [
        (DriftPolicy(), "alpha", 1),
        (DriftPolicy(), "window", 0),
        (RolloutPolicy(), "on_no_traffic", "wait"),
        (RolloutPolicy(), "steps", [100]),
        (RetentionPolicy(), "days", 0),
        (RetentionPolicy(), "predictions", 999),
    ],
)
def test_a_value_that_breaks_its_rule_is_refused(
    policy: msgspec.Struct, name: str, value: object
) -> None:
    with pytest.raises(msgspec.ValidationError, match=name):
        override(policy, {name: value})
