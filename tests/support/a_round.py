"""A line of a spool for several requests, as a server writes it."""

from collections.abc import Sequence

from watchkeeper.contracts.record import Answered, Prediction, Round


def together(made: Sequence[Prediction]) -> Round:
    """Return the round of predictions of one version, in their order."""
    answered = [
        Answered(
            p.id, p.attempt, p.protocol, p.client, p.time, p.latency, p.rows, p.flags, p.subject
        )
        for p in made
    ]
    first = made[0]
    inputs = {name: [p.inputs[name] for p in made] for name in first.inputs}
    outputs = {name: [v for p in made for v in p.outputs[name]] for name in first.outputs}
    return Round(first.model, first.version, answered, inputs, outputs)
