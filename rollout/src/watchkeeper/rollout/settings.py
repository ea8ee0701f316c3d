"""The settings of the controller."""

from collections.abc import Iterable
from typing import Any

import msgspec

from watchkeeper.core.adoption import AdoptionRule
from watchkeeper.core.names import check_model_name
from watchkeeper.core.policies import RolloutPolicy, override
from watchkeeper.ledger import Ledger


class RolloutSettings(msgspec.Struct, frozen=True):
    """The settings, read from environment variables ``WATCHKEEPER_<NAME>``.

    Attributes:
        models: the models to roll out, as a JSON list.
        ledger_url: the URL of the ledger.
        platform: ``local:<folder>`` or ``kube:<namespace>``.
        port: the port of /metrics and /healthz.
        rollout_policy: values that replace those of the versions' own policies, as JSON.
        rollout_policies: the same for single models, by name. They take precedence.
        turn_seconds: the time between two turns of a model.
        host: the address of /metrics and /healthz.
        removal_seconds: the time from the last configuration until a model that it no longer has
            is taken out of service.
        trained_models: the models for which training runs are started without a person, as a JSON
            list: for a first version, and for each new ``code_version``.
        code_version: the version of the code that trains; empty where new code is no reason to
            train.
        code_versions: the same for single models, by name. They take precedence.
        adopt: which versions of MLflow models adopt without a person, by model, as JSON, such as
            ``{"churn-risk": {"model": "churn", "when": "each"}}``.
        cache: a folder for the files of versions. With it, a canary can be judged after a restart
            while the registry is down. Without it, the files are temporary.
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
    removal_seconds: float = 0.0
    trained_models: tuple[str, ...] = ()
    code_version: str = ""
    code_versions: dict[str, str] = {}
    adopt: dict[str, AdoptionRule] = {}

    def policy_overrides(self, model: str) -> dict[str, Any]:
        """Return the values that replace those of the policy of a model's versions."""
        return {**self.rollout_policy, **self.rollout_policies.get(model, {})}

    def check(self) -> None:
        """Check what the types do not.

        Raises:
            ValueError: a setting is wrong; the message names it.
        """
        for model in self.models:
            check_model_name(model)
        about: dict[str, Iterable[str]] = {
            "ROLLOUT_POLICIES": self.rollout_policies,
            "CODE_VERSIONS": self.code_versions,
            "TRAINED_MODELS": self.trained_models,
            "ADOPT": self.adopt,
        }
        for name, models in about.items():
            for model in models:
                if model not in self.models:
                    raise ValueError(f"WATCHKEEPER_{name}: {model!r} is not in WATCHKEEPER_MODELS")
        for model in self.models:
            override(RolloutPolicy(), self.policy_overrides(model))
        Ledger(self.ledger_url).close()  # checks the URL only: it does not connect
        if self.turn_seconds <= 0:
            raise ValueError("WATCHKEEPER_TURN_SECONDS must be above 0")
