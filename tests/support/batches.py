"""Batches of predictions, as a server writes them into the spool."""

from collections.abc import Sequence

from watchkeeper.core.record import Batch, BatchedRequest, Prediction


def batch_of(predictions: Sequence[Prediction]) -> Batch:
    """Return the batch of predictions of one model and version, in their order."""
    requests = [
        BatchedRequest(
            p.id,
            p.attempt,
            p.protocol,
            p.client,
            p.time,
            p.latency,
            p.rows,
            p.flags,
            p.subject,
            p.synthetic,
        )
        for p in predictions
    ]
    first = predictions[0]
    inputs = {name: [p.inputs[name] for p in predictions] for name in first.inputs}
    outputs = {name: [v for p in predictions for v in p.outputs[name]] for name in first.outputs}
    return Batch(first.model, first.version, requests, inputs, outputs)
