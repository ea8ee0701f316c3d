"""Policies: the values that control drift detection, rollouts and retention.

Drift and rollout policies are part of a version: they are declared with the model and stored in its
manifest. Settings replace single values. Every event of a decision contains the policy in force.

Descriptions and rules are part of the types, see :mod:`watchkeeper.core.field_docs`.
"""

from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

P = TypeVar("P", bound=msgspec.Struct)

TrafficPercent = Annotated[int, Meta(ge=1, le=99)]


def override(policy: P, changes: dict[str, Any]) -> P:
    """Return a policy with some values replaced.

    Args:
        policy: The policy.
        changes: New values by name, as in JSON::

            override(DriftPolicy(), {"window": 1000})

    Raises:
        msgspec.ValidationError: a name is unknown, or a value breaks its rule.
    """
    return msgspec.convert({**msgspec.to_builtins(policy), **changes}, type(policy))


class DriftPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a change of the data or of the error counts as drift, and what follows.

    A window has drifted if one of its features has drifted. A feature has drifted if a test rejects
    *and* the effect is large enough. A drift that is seen again in newer rows opens an episode. The
    episode waits for labels, starts a training run, and ends with the promotion of its version or
    with several clean windows in a row.

    Concept drift is judged apart, by labelled rows: the live loss has risen above that of the gate.
    It opens an episode by itself.
    """

    window: Annotated[int, Meta(description="Rows of a window.", ge=1)] = 500
    every: Annotated[int, Meta(description="Rows from one window to the next.", ge=1)] = 125
    alpha: Annotated[
        float,
        Meta(
            description="Significance level of a window, divided by the number of its features.",
            gt=0,
            lt=1,
        ),
    ] = 0.001
    minimum_effect: Annotated[
        float,
        Meta(
            description="Smallest effect that counts as drift, from 0 to 1. The effect must also "
            "be larger than the variation between blocks of the reference.",
            ge=0,
        ),
    ] = 0.2
    confirm: Annotated[
        int,
        Meta(
            description="How often in a row a drift must be seen to open an episode: first in a "
            "window, then each time in at least a quarter of a window of newer rows.",
            ge=1,
        ),
    ] = 2
    clean_windows: Annotated[
        int, Meta(description="Clean windows in a row that close an episode.", ge=1)
    ] = 4
    minimum_labels: Annotated[
        int,
        Meta(description="Labelled rows since the onset that start a training run.", ge=0),
    ] = 800
    minimum_positives: Annotated[
        int,
        Meta(
            description="Rows of the rare kind among them that are required as well: positives "
            "(binary), or rows outside the most frequent class (multi-class).",
            ge=0,
        ),
    ] = 60
    label_timeout: Annotated[
        float,
        Meta(description="Seconds after which an episode trains without enough labels.", ge=0),
    ] = 7 * 86400.0
    cool_down: Annotated[
        float,
        Meta(description="Seconds from a failed or rejected attempt to the next one.", ge=0),
    ] = 3600.0
    maximum_attempts: Annotated[
        int, Meta(description="Training runs of one episode, at most.", ge=1)
    ] = 3
    retrain: Annotated[
        bool,
        Meta(
            description="Whether an episode starts training runs. Without it, an episode gives up "
            "and waits for a person."
        ),
    ] = True
    training_distance: Annotated[
        float,
        Meta(
            description="Seconds from one training run that a drift of a model starts to the next "
            "such run, at least.",
            ge=0,
        ),
    ] = 6 * 3600.0
    training_distance_rows: Annotated[
        int,
        Meta(
            description="Rows of requests to the version in production that must follow that run "
            "as well.",
            ge=0,
        ),
    ] = 4000
    maximum_promotions: Annotated[
        int,
        Meta(
            description="Promotions in a row without improvement after which an episode gives up "
            "instead of training again. A promotion answers a drift without improvement if the "
            "promoted version drifts again within `settled` seconds.",
            ge=1,
        ),
    ] = 3
    settled: Annotated[
        float,
        Meta(
            description="Seconds without a new episode that make a promotion an improvement.", ge=0
        ),
    ] = 7 * 86400.0
    concept_block: Annotated[
        int,
        Meta(
            description="Consecutive rows whose mean loss is one observation of the test for "
            "concept drift, at least. They are more if the gate sees that blocks of this length "
            "depend on each other, and because only some of the rows are held out. Twenty blocks "
            "of this length must be held out.",
            ge=1,
        ),
    ] = 50
    concept_effect: Annotated[
        float,
        Meta(
            description="Smallest rise of the mean loss that counts as concept drift, as a share "
            "of the loss that the gate measured, and at least 0.005. It is a rise above the upper "
            "end of the gate's interval.",
            ge=0,
        ),
    ] = 0.1
    concept_alarm_rows: Annotated[
        float,
        Meta(
            description="Mean number of rows until a false alarm about concept drift, at least, "
            "over all heads of a version.",
            gt=0,
        ),
    ] = 1_000_000.0
    concept_label_share: Annotated[
        float,
        Meta(
            description="Share of a block that must be labelled after `concept_label_delay`. Below "
            "0.9 it declares that chance decides which rows are labelled.",
            gt=0,
            le=1,
        ),
    ] = 0.9
    concept_label_delay: Annotated[
        float,
        Meta(
            description="Seconds after which no more labels of a block are expected. A block with "
            "too few of them is skipped.",
            ge=0,
        ),
    ] = 7 * 86400.0


class RolloutPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a new version takes over the traffic, and when it loses it again.

    Each step is compared with the stable version and passes, fails or stays inconclusive. After the
    last step the version is promoted and gets all traffic. Then it is watched, while the old
    version stays ready for a rollback.
    """

    steps: Annotated[
        tuple[TrafficPercent, ...],
        Meta(description="Canary steps before the promotion, in ascending percentages of traffic."),
    ] = (10, 25, 50)
    step_seconds: Annotated[float, Meta(description="Shortest step, in seconds.", ge=0)] = 300.0
    minimum_requests: Annotated[
        int,
        Meta(
            description="Requests that the canary must answer in a step, for each protocol in use.",
            ge=0,
        ),
    ] = 100
    patience: Annotated[
        float,
        Meta(
            description="Seconds without enough requests after which `on_no_traffic` applies. "
            "It also limits how long a new version may be not ready, and extends an inconclusive "
            "watch beyond `watch_seconds`.",
            ge=0,
        ),
    ] = 3600.0
    on_no_traffic: Annotated[
        Literal["extend", "abort"],
        Meta(description="What a step without enough requests does: continue, or roll back."),
    ] = "extend"
    error_margin: Annotated[
        float,
        Meta(
            description="How far the error rate may be above that of stable, as a share of "
            "requests.",
            ge=0,
        ),
    ] = 0.01
    latency_quantile: Annotated[
        float,
        Meta(
            description="Quantile of the latency that is compared, beside the median.", gt=0, lt=1
        ),
    ] = 0.9
    latency_ratio: Annotated[
        float,
        Meta(description="How many times the latency of stable a canary may take.", gt=0),
    ] = 2.0
    latency_floor: Annotated[
        float, Meta(description="Latencies below this never fail a step, in seconds.", ge=0)
    ] = 0.010
    score_tolerance: Annotated[
        float,
        Meta(
            description="Largest difference between a live score and the version's own offline "
            "prediction; relative for scores beyond 1.",
            ge=0,
        ),
    ] = 1e-5
    quality_margin: Annotated[
        float,
        Meta(
            description="How much worse than stable the version may be on labels: in ROC AUC "
            "(binary), in balanced accuracy (multi-class), or by the relative growth of the mean "
            "absolute error (regression).",
            ge=0,
        ),
    ] = 0.05
    watch_seconds: Annotated[
        float, Meta(description="How long a promoted version is watched, in seconds.", ge=0)
    ] = 1800.0
    on_manual_move: Annotated[
        Literal["direct", "canary"],
        Meta(
            description="What a change of the alias `production` by a person starts: an immediate "
            "switch, or a rollout with all steps."
        ),
    ] = "canary"

    def __post_init__(self) -> None:
        if list(self.steps) != sorted(set(self.steps)) or not all(0 < s < 100 for s in self.steps):
            raise ValueError(f"rollout steps {self.steps}: must rise, each from 1 to 99")


class RetentionPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long the ledger stores predictions and what belongs to them.

    Rows that an open episode or a rollout needs stay. Events, episodes and attempts stay for ever.
    """

    days: Annotated[float, Meta(description="Older predictions are removed, in days.", gt=0)] = 90.0
    predictions: Annotated[
        int, Meta(description="Only so many predictions stay, the newest.", ge=1000)
    ] = 5_000_000
