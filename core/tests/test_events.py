"""Events read back as they were stored, also by another release."""

import msgspec
import pytest

from watchkeeper.core.events import (
    Event,
    Promoted,
    RolledBack,
    StepFinished,
    Unknown,
    as_json,
    dump_details,
    kind_of,
    parse_details,
    parse_event,
)
from watchkeeper.core.policies import RolloutPolicy

STEP = StepFinished(
    percent=10,
    since=1.0,
    until=2.0,
    verdict="fail",
    observations={"errors": [1, 20]},
    policy={**msgspec.to_builtins(RolloutPolicy()), "steps": [10, 50]},
)


def test_details_read_back_as_they_were_stored() -> None:
    stored = msgspec.json.decode(msgspec.json.encode(dump_details(STEP)))
    assert "kind" not in stored
    assert parse_details(kind_of(STEP), stored) == STEP
    assert kind_of(StepFinished) == "step"


def test_missing_fields_have_defaults_and_unknown_fields_are_skipped() -> None:
    assert parse_details("promoted", {"weather": "rain"}) == Promoted()


@pytest.mark.parametrize(
    ("kind", "values"), [("paused", {"by": "somebody"}), ("rolled-back", {"to": "stable"})]
)
def test_details_of_an_unknown_kind_or_form_are_unknown(
    kind: str, values: dict[str, object]
) -> None:
    details = parse_details(kind, values)
    assert details == Unknown(another_kind=kind, values=values)
    assert (kind_of(details), dump_details(details)) == (kind, values)


def test_json_has_the_kind_beside_the_details() -> None:
    event = Event("id", "pump-failure", 2, 5.0, "slower", RolledBack(to=1, percent=10))
    assert as_json(event) == {
        "id": "id",
        "model": "pump-failure",
        "version": 2,
        "kind": "rolled-back",
        "time": 5.0,
        "reason": "slower",
        "details": {"format": 1, "to": 1, "percent": 10},
    }


def test_a_policy_value_of_a_later_release_is_read() -> None:
    stored = dump_details(STEP)
    stored["policy"]["rain_margin"] = 0.1
    read = parse_details("step", stored)
    assert isinstance(read, StepFinished)
    assert read.policy == {**STEP.policy, "rain_margin": 0.1}


@pytest.mark.parametrize(
    "details", [STEP, Unknown(another_kind="paused", values={"by": "somebody", "format": 2})]
)
def test_an_event_reads_back_from_its_json(details: StepFinished | Unknown) -> None:
    event = Event("id", "pump-failure", 2, 5.0, "slower", details)
    stored = msgspec.json.encode(as_json(event))
    assert parse_event(msgspec.json.decode(stored)) == event


@pytest.mark.parametrize("values", [[], {}, {"id": "id", "model": "pump-failure", "kind": "step"}])
def test_what_is_not_an_event_is_an_error(values: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        parse_event(values)
