"""Policies of the loop: their defaults travel with a version, values in force with each event."""

from typing import Any, TypeVar

import msgspec

P = TypeVar("P", bound=msgspec.Struct)


def override(policy: P, changes: dict[str, Any]) -> P:
    """Return the policy with some of its values replaced, as values or settings give them.

    Raises:
        msgspec.ValidationError: an unknown name or a value that breaks its rule; it says which.
    """
    return msgspec.convert({**msgspec.to_builtins(policy), **changes}, type(policy))


class DriftPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When the watch calls a change of the data drift, and what it does about it.

    ``window`` rows are compared with the reference every ``every`` rows. A window is drifted
    when a test rejects at ``alpha`` after correction over the features *and* its effect size is
    at least ``minimum_effect`` and beyond what contiguous blocks of the reference show among
    themselves. ``confirm`` drifted windows in a row open an episode; ``clean_windows`` in a row
    close it. An episode trains once ``minimum_labels`` rows and ``minimum_positives`` positive
    ones since its onset are labelled, or ``label_timeout`` seconds after it opened; after a
    rejected attempt it waits ``cool_down`` seconds, and gives up after ``maximum_attempts``.
    """

    window: int = 500
    every: int = 125
    alpha: float = 0.001
    minimum_effect: float = 0.2
    confirm: int = 2
    clean_windows: int = 4
    minimum_labels: int = 800
    minimum_positives: int = 60
    label_timeout: float = 7 * 86400.0
    cool_down: float = 3600.0
    maximum_attempts: int = 3


class RolloutPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a new version takes over the traffic, and what takes it off again.

    ``steps`` are percentages; 100 % is the promotion that follows them. A step lasts at least
    ``step_seconds`` and until each protocol in use has ``minimum_requests`` answered by the
    canary; without them for ``patience`` seconds ``on_no_traffic`` applies. A step fails when
    the canary's error rate is above stable's by more than ``error_margin``; when its latency
    at the median or at ``latency_quantile`` is certainly above both ``latency_ratio`` times
    stable's and ``latency_floor`` seconds; when a live score is further than
    ``score_tolerance`` from what the version predicts offline; or when the labels say that it
    is worse than stable by more than ``quality_margin`` (ROC AUC). After promotion the new
    version is watched for ``watch_seconds``, and the old one stays warm.
    """

    steps: tuple[int, ...] = (10, 25, 50)
    step_seconds: float = 300.0
    minimum_requests: int = 100
    patience: float = 3600.0
    on_no_traffic: str = "extend"
    error_margin: float = 0.01
    latency_quantile: float = 0.9
    latency_ratio: float = 2.0
    latency_floor: float = 0.010
    score_tolerance: float = 1e-5
    quality_margin: float = 0.05
    watch_seconds: float = 1800.0
    on_manual_move: str = "canary"

    def __post_init__(self) -> None:
        if list(self.steps) != sorted(set(self.steps)) or not all(0 < s < 100 for s in self.steps):
            raise ValueError(f"rollout steps {self.steps}: must rise, each from 1 to 99")
        if self.on_no_traffic not in ("extend", "abort"):
            raise ValueError(f"on_no_traffic {self.on_no_traffic!r}: must be 'extend' or 'abort'")
        if self.on_manual_move not in ("direct", "canary"):
            raise ValueError(
                f"on_manual_move {self.on_manual_move!r}: must be 'direct' or 'canary'"
            )


class RetentionPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long the ledger keeps the predictions of a model, and all that belongs to them.

    Those older than ``days``, and all but the newest ``predictions`` of them, are removed; never
    what an open episode or a rollout still needs. Events, episodes and attempts stay.
    """

    days: float = 90.0
    predictions: int = 5_000_000

    def __post_init__(self) -> None:
        if not self.days > 0:
            raise ValueError(f"days {self.days!r}: must be more than 0")
        if self.predictions < 1000:
            raise ValueError(f"predictions {self.predictions}: at least 1000 must be kept")
