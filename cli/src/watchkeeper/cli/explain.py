"""`watchkeeper explain`: the chain from one prediction back to its cause, and what became of it.

prediction → version → training run → data → what triggered it → each traffic step, its verdict.
"""

from typing import Any

import msgspec
from rich.console import Console
from rich.tree import Tree
from sqlalchemy import select

from watchkeeper.cli.history import title
from watchkeeper.cli.installation import Installation
from watchkeeper.contracts.prediction_id import request_of
from watchkeeper.ledger import tables as t
from watchkeeper.ledger.episodes import Attempt, Episode, attempts, episodes
from watchkeeper.ledger.events import Event, history

GATE = ("gate-passed", "gate-rejected")
TRAFFIC = ("begun", "step", "promoted", "watched", "rolled-back")


class UnknownPredictionError(LookupError):
    """The ledger has no such prediction (yet)."""


class Chain(msgspec.Struct, frozen=True):
    """All that led to a prediction; ``training`` is the gate's event with its details, ``hidden``
    are the attempts at it that the client did not see."""

    prediction: dict[str, Any]
    labels: list[dict[str, Any]]
    version: int
    training: Event | None
    attempt: Attempt | None
    episode: Episode | None
    steps: list[Event]
    hidden: list[dict[str, Any]] = []


def read_chain(installation: Installation, prediction_id: str) -> Chain:
    """Follow a prediction id, whole or only its request part, through the ledger.

    Raises:
        UnknownPredictionError: it is not in the ledger.
    """
    request = request_of(prediction_id)
    with installation.ledger.read() as connection:
        found = connection.execute(
            select(t.predictions).where(t.predictions.c.id == request)
        ).first()
        labels = connection.execute(
            select(t.labels).where(t.labels.c.prediction == request).order_by(t.labels.c.row)
        ).all()
        hidden = connection.execute(
            select(t.superseded)
            .where(t.superseded.c.id == request)
            .order_by(t.superseded.c.attempt)
        ).all()
    if found is None:
        raise UnknownPredictionError(
            f"prediction {prediction_id!r} is not in the ledger: a fresh one takes a second to be "
            "shipped; otherwise look whether the id is complete"
        )
    gate = next(
        iter(history(installation.ledger, found.model, version=found.version, kind=GATE)), None
    )
    run = gate.details.get("run") if gate else None
    attempt = next((a for a in attempts(installation.ledger, found.model) if a.run == run), None)
    episode_id = (attempt and attempt.episode) or (gate and gate.details.get("episode"))
    return Chain(
        prediction=dict(found._mapping),
        labels=[dict(row._mapping) for row in labels],
        version=found.version,
        training=gate,
        attempt=attempt,
        episode=next(
            (e for e in episodes(installation.ledger, found.model) if e.id == episode_id), None
        ),
        steps=history(installation.ledger, found.model, version=found.version, kind=TRAFFIC),
        hidden=[dict(row._mapping) for row in hidden],
    )


def print_chain(console: Console, chain: Chain) -> None:
    """Show the chain as a tree, newest cause first."""
    asked = chain.prediction
    tree = Tree(
        f"[bold]prediction {asked['id']}[/bold]: {asked['status']} over {asked['protocol']} "
        f"in {asked['latency'] * 1000:.1f} ms"
    )
    tree.add(f"asked {asked['inputs']}")
    tree.add(f"answered {asked['outputs']}" if asked["outputs"] else f"refused: {asked['error']}")
    for other in chain.hidden:
        tree.add(f"attempt {other['attempt']}, version {other['version']}: {other['status']}")
    for label in chain.labels:
        tree.add(f"row {label['row']} turned out to be {label['value']:g}")
    version = tree.add(f"[bold]{asked['model']} version {chain.version}[/bold]")
    if chain.training:
        run = version.add(f"training run {chain.training.details.get('run')}")
        run.add(f"gate: {chain.training.kind}: {chain.training.reason}")
        if data := chain.training.details.get("data"):
            run.add(
                f"data: {data['rows']} rows of history and {data['labelled_rows']} labelled "
                f"predictions, SHA-256 {data['data_hash'][:16]}"
            )
        run.add(f"triggered by: {chain.training.details.get('trigger')}")
        if chain.episode:
            run.add(f"drift episode {chain.episode.id}: {chain.episode.state}")
    steps = version.add("traffic")
    for step in chain.steps:
        steps.add(f"{title(step)}: {step.reason}")
    console.print(tree)
