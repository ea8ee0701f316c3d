"""Records of requests: one line of the spool per batch, one line per refused request."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from watchkeeper.core.record import Batch, BatchedRequest, Prediction
from watchkeeper.serving.errors import RequestError
from watchkeeper.serving.metrics import Metrics
from watchkeeper.serving.request import Call, CheckedRequest
from watchkeeper.serving.spool import SpoolWriter
from watchkeeper.serving.tensors import Values

# Inputs that arrived as binary data are arrays.
_encoder = msgspec.json.Encoder(enc_hook=np.ndarray.tolist)


class Recorder:
    """Writes records to the spool and counts those that the spool has no room for."""

    def __init__(self, model: str, version: int, spool: SpoolWriter, metrics: Metrics) -> None:
        self._model, self._version = model, version
        self._spool = spool
        self._metrics = metrics

    def write_batch(
        self,
        requests: Sequence[CheckedRequest],
        inputs: Mapping[str, Sequence[Values]],
        outputs: Mapping[str, Sequence[Any]],
        answered: float,
    ) -> None:
        """Write one line for all requests of a batch.

        Args:
            requests: The requests, in the order of their rows.
            inputs: For each column one list or array per request.
            outputs: For each output one list with the rows of all requests.
            answered: The time of the answers on the performance counter, in seconds.
        """
        batched = []
        for request in requests:
            call, checked = request.call, request.checked
            batched.append(
                BatchedRequest(
                    call.request_id,
                    call.attempt,
                    call.protocol,
                    call.client,
                    call.time,
                    answered - call.started,
                    checked.rows,
                    checked.flags,
                    request.subject,
                    call.is_synthetic,
                )
            )
        record = Batch(self._model, self._version, batched, inputs, outputs)
        self._write(record, len(batched), batched[0].time)

    def write_refusal(self, call: Call, error: RequestError, subject: str, latency: float) -> None:
        """Write the record of a request without an answer; ``latency`` is in seconds."""
        record = Prediction(
            id=call.request_id,
            attempt=call.attempt,
            model=self._model,
            version=self._version,
            protocol=call.protocol,
            client=call.client,
            time=call.time,
            latency=latency,
            status=error.grpc,
            error=str(error),
            subject=subject,
            synthetic=call.is_synthetic,
        )
        self._write(record, 1, call.time)

    def _write(self, record: Batch | Prediction, requests: int, since: float) -> None:
        """Write a line of ``requests`` records, the first of which arrived at ``since``."""
        if self._spool.write(_encoder.encode(record) + b"\n"):
            self._metrics.records.inc(requests)
        else:
            self._spool.count_lost(requests, since)
            self._metrics.lost.inc(requests)
