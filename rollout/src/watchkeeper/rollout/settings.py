"""The settings of the controller."""

from typing import Any

import msgspec

from watchkeeper.contracts.names import check_model_name
from watchkeeper.contracts.policies import RolloutPolicy, override
from watchkeeper.ledger import Ledger


class Settings(msgspec.Struct, frozen=True):
    """``models`` as a JSON list; ``rollout_policy`` is JSON and overrides the versions' own values,
    ``rollout_policies`` has the last word for single models, by name; ``port`` answers /metrics
    and /healthz; ``cache`` is a folder that keeps the files of versions between restarts, so that
    a canary can be judged while the registry is down.
    """

    models: tuple[str, ...]
    ledger_url: str
    platform: str
    port: int
    rollout_policy: dict[str, Any] = {}
    rollout_policies: dict[str, dict[str, Any]] = {}
    turn_seconds: float = 5.0
    host: str = "127.0.0.1"
    cache: str = ""

    def policy_of(self, model: str) -> dict[str, Any]:
        """Return what overrides a model's own policy."""
        return {**self.rollout_policy, **self.rollout_policies.get(model, {})}

    def check(self) -> None:
        """Check what types alone do not say; raises ValueError."""
        for model in self.models:
            check_model_name(model)
        for model in self.rollout_policies:
            if model not in self.models:
                raise ValueError(f"WATCHKEEPER_ROLLOUT_POLICIES: {model!r} is none of the models")
        for model in self.models:
            override(RolloutPolicy(), self.policy_of(model))
        Ledger(self.ledger_url).close()  # nothing is connected to before it is used
        if self.turn_seconds <= 0:
            raise ValueError("WATCHKEEPER_TURN_SECONDS must be above 0")
