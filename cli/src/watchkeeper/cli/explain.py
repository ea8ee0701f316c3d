"""``watchkeeper explain``: how one prediction came about.

The chain is: prediction → version → training run → data → trigger → traffic of the version.
"""

from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from watchkeeper.cli.history import summarize
from watchkeeper.cli.system import System
from watchkeeper.core.events import (
    Event,
    GatePassed,
    GateRejected,
    NumberReused,
    Promoted,
    RolledBack,
    RolloutStarted,
    RouteRepaired,
    StepFinished,
    Watched,
    as_json,
)
from watchkeeper.core.prediction_id import request_of
from watchkeeper.ledger.episodes import Attempt, Episode, attempts, episodes
from watchkeeper.ledger.events import history
from watchkeeper.ledger.lookup import FoundPrediction, find_prediction

GATE = (GatePassed, GateRejected)
TRAFFIC = (
    NumberReused,
    RolloutStarted,
    StepFinished,
    Promoted,
    Watched,
    RolledBack,
    RouteRepaired,
)


class UnknownPredictionError(LookupError):
    """The ledger does not have the prediction."""


class Explanation(msgspec.Struct, frozen=True):
    """A prediction and everything that led to it.

    ``training`` is the event of the gate that judged the version, ``attempt`` and ``episode`` are
    what started that training run, and ``traffic`` are the events of the version's rollouts, and
    of what people have changed for it: its number or the route.
    """

    found: FoundPrediction
    training: Event | None
    attempt: Attempt | None
    episode: Episode | None
    traffic: list[Event]

    def as_json(self) -> dict[str, Any]:
        """Return plain values: what ``--json`` prints."""
        return {
            "prediction": msgspec.structs.asdict(self.found.prediction),
            "labels": self.found.labels,
            "version": self.found.prediction.version,
            "training": as_json(self.training) if self.training else None,
            "attempt": self.attempt,
            "episode": self.episode,
            "steps": [as_json(event) for event in self.traffic],
            "hidden": self.found.superseded,
        }


def read_explanation(system: System, prediction_id: str) -> Explanation:
    """Follow a prediction back to its cause.

    Args:
        system: the system.
        prediction_id: the id in the response, or only its first part, the request.

    Raises:
        UnknownPredictionError: the ledger does not have the prediction.
    """
    ledger = system.ledger
    found = find_prediction(ledger, request_of(prediction_id))
    if found is None:
        raise UnknownPredictionError(
            f"the ledger has no prediction {prediction_id!r}; a new prediction arrives there after "
            "about a second, so try again, or check that the id is complete"
        )
    model, version = found.prediction.model, found.prediction.version
    gate = next(iter(history(ledger, model, version=version, kind=GATE)), None)
    run = gate.details.run if gate and isinstance(gate.details, GATE) else None
    attempt = next((a for a in attempts(ledger, model) if a.run == run), None)
    episode_id = attempt.episode if attempt else None
    if episode_id is None and gate and isinstance(gate.details, GATE):
        episode_id = gate.details.episode
    return Explanation(
        found=found,
        training=gate,
        attempt=attempt,
        episode=next((e for e in episodes(ledger, model) if e.id == episode_id), None),
        traffic=history(ledger, model, version=version, kind=TRAFFIC),
    )


def print_explanation(console: Console, explanation: Explanation) -> None:
    """Print the chain as a tree that starts with the prediction."""
    prediction = explanation.found.prediction
    tree = Tree(
        f"[bold]prediction {prediction.id}[/bold]: {prediction.status} over {prediction.protocol} "
        f"in {prediction.latency * 1000:.1f} ms"
    )
    tree.add(escape(f"inputs: {prediction.inputs}"))
    if prediction.outputs:
        tree.add(escape(f"outputs: {prediction.outputs}"))
    else:
        tree.add(escape(f"refused: {prediction.error}"))
    if prediction.synthetic:
        tree.add("synthetic: never labelled, watched or learned from")
    for other in explanation.found.superseded:
        tree.add(f"attempt {other.attempt} by version {other.version}: {other.status}")
    for label in explanation.found.labels:
        name = f" {label.name!r}" if label.name else ""
        tree.add(f"label{name} of row {label.row}: {label.value:g}")
    version = tree.add(f"[bold]{prediction.model} version {prediction.version}[/bold]")
    if explanation.training:
        _add_training(version, explanation.training, explanation.episode)
    traffic = version.add("traffic")
    for event in explanation.traffic:
        traffic.add(escape(f"{summarize(event)}: {event.reason}"))
    console.print(tree)


def _add_training(version: Tree, gate: Event, episode: Episode | None) -> None:
    details = gate.details
    if not isinstance(details, GATE):  # another release has written the event
        version.add(escape(f"gate: {gate.kind}: {gate.reason}"))
        return
    run = version.add(f"training run {escape(details.run)}")
    run.add(escape(f"gate: {gate.kind}: {gate.reason}"))
    run.add(
        f"data: {details.data.rows} rows of history and {details.data.labelled_rows} labelled "
        f"predictions, SHA-256 {details.data.data_hash[:16]}"
    )
    if details.data.sample:
        run.add(f"sample: {details.data.sample}")
    run.add(escape(f"trigger: {details.trigger}"))
    if episode:
        run.add(f"drift episode {episode.id}: {episode.state}")
