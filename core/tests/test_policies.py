"""Policies and their overrides."""

import msgspec
import pytest

from watchkeeper.core.policies import DriftPolicy, RolloutPolicy, override


def test_override_replaces_values_and_refuses_unknown_or_invalid_ones() -> None:
    assert override(DriftPolicy(), {"window": 100}) == DriftPolicy(window=100)
    with pytest.raises(msgspec.ValidationError, match="unknown field `windw`"):
        override(DriftPolicy(), {"windw": 100})
    with pytest.raises(msgspec.ValidationError, match="must rise"):
        override(RolloutPolicy(), {"steps": [50, 10]})
