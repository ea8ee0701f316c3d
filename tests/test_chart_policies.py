"""The chart's values accept exactly the fields of the policies."""

import json
from pathlib import Path

import msgspec
import pytest

from watchkeeper.core.answer import AnswerPolicy
from watchkeeper.core.policies import DriftPolicy, RetentionPolicy, RolloutPolicy

CHART = Path(__file__).parents[1] / "charts/watchkeeper"


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("drift", DriftPolicy),
        ("rollout", RolloutPolicy),
        ("answer", AnswerPolicy),
        ("retention", RetentionPolicy),
    ],
)
def test_the_schema_has_every_field_of_a_policy_and_no_other(
    name: str, policy: type[msgspec.Struct]
) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    described = schema["definitions"][f"{name}Policy"]
    assert set(described["properties"]) == set(policy.__struct_fields__)
    assert described["additionalProperties"] is False
