"""The path of a request, the same for every protocol:

decode → contract → batch → engine → answer → record → encode

:class:`DataPlane` takes one request along this path. :class:`BatchPredictor` does the middle part
(engine, answer, record) for all requests of a batch at once.

Everything runs in the thread of the event loop. An answer leaves after its record is in the
kernel's hands.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from watchkeeper.core.prediction_id import PredictionId, sign
from watchkeeper.core.record import OK
from watchkeeper.core.tasks.base import Task
from watchkeeper.serving.contract import check_subject
from watchkeeper.serving.errors import (
    MODEL_HINT,
    InternalError,
    NotFoundError,
    RequestError,
    TemporarilyUnavailableError,
)
from watchkeeper.serving.metrics import Metrics
from watchkeeper.serving.micro_batching import MicroBatcher
from watchkeeper.serving.recorder import Recorder
from watchkeeper.serving.request import Answer, Call, CheckedRequest, Codec
from watchkeeper.serving.spool import SpoolWriter
from watchkeeper.serving.version import Version

logger = logging.getLogger(__name__)

# Rows of several requests in one batch. The limit keeps the lines of the spool short.
_MAX_BATCH_ROWS = 4096

Body = TypeVar("Body")
Encoded = TypeVar("Encoded")


class DataPlane:
    """Answers requests for one version of one model, once the version is loaded.

    Attributes:
        synthetic_clients: The clients whose requests are synthetic.
        readiness_changed: Set when ``ready`` changes next; then replaced by another event.
    """

    def __init__(
        self,
        model: str,
        version: int,
        batcher: MicroBatcher[CheckedRequest, Answer],
        recorder: Recorder,
        metrics: Metrics,
        *,
        synthetic_clients: frozenset[str] = frozenset(),
    ) -> None:
        self.model = model
        self.version = version
        self.synthetic_clients = synthetic_clients
        self.draining = False
        self.readiness_changed = asyncio.Event()
        self._batcher = batcher
        self._recorder = recorder
        self._metrics = metrics
        self._loaded: Version | None = None

    @property
    def ready(self) -> bool:
        """Whether clients should send requests: the version is loaded, the process stays."""
        return self._loaded is not None and not self.draining

    @property
    def truths(self) -> dict[str, Task] | None:
        """The tasks that say what a label is, by the name of the truth; None until loaded."""
        return self._loaded.truths if self._loaded else None

    @property
    def seconds_per_request(self) -> float:
        """How many seconds a request of the newest batch took on average."""
        return self._batcher.seconds_per_item

    def start(self, version: Version) -> None:
        """Answer requests with this version from now on."""
        self._loaded = version
        self._report_readiness()

    def drain(self) -> None:
        """Become not ready. Requests that still arrive are answered."""
        self.draining = True
        self._report_readiness()

    async def infer(
        self, call: Call, model: str, version: str, codec: Codec[Body, Encoded], body: Body
    ) -> Encoded:
        """Answer one request and record it.

        Args:
            call: What the headers say.
            model: The model that the client asks for.
            version: The version that the client asks for; empty for any.
            codec: Decodes the body and encodes the answer.
            body: The body in the codec's form.

        Raises:
            RequestError: The request has no answer. The refusal is recorded.
        """
        subject = ""
        try:
            call.check_synthetic()
            loaded = self._find(model, version)
            request = codec.decode(body)
            if request.subject is not msgspec.UNSET:
                subject = check_subject(request.subject)
            checked = loaded.contract.check(request.tensors, request.outputs)
            answer = await self._batcher.submit(CheckedRequest(call, subject, loaded, checked))
        except RequestError as error:
            self.refuse(call, error, subject)
            raise
        except Exception as error:
            # The only place that catches everything: the traceback goes to the log, not out.
            logger.exception("request %s failed", call.request_id)
            internal = InternalError(
                f"internal error; look for {call.request_id} in the log of the server"
            )
            self.refuse(call, internal, subject)
            raise internal from error
        return codec.encode(answer, request)

    def refuse(self, call: Call, error: RequestError, subject: str = "") -> None:
        """Record a request without an answer."""
        latency = time.perf_counter() - call.started
        self._metrics.observe_request(call.protocol, error.grpc, latency)
        self._recorder.write_refusal(call, error, subject, latency)

    def _report_readiness(self) -> None:
        self._metrics.ready.set(self.ready)
        self.readiness_changed.set()
        self.readiness_changed = asyncio.Event()

    def _find(self, model: str, version: str) -> Version:
        if model != self.model or version not in ("", str(self.version)):
            wanted = f"{model!r} version {version!r}" if version else f"{model!r}"
            here = f"{self.model!r} {self.version} is"
            raise NotFoundError(f"model {wanted} is not served here, {here}; {MODEL_HINT}")
        loaded = self._loaded
        if loaded is None:
            raise TemporarilyUnavailableError(
                f"model {self.model!r} {self.version} is still loading; try again"
            )
        return loaded


class BatchPredictor:
    """Answers the requests of a batch: engine → answer → record."""

    def __init__(
        self, model: str, version: int, signing_key: bytes, recorder: Recorder, metrics: Metrics
    ) -> None:
        self._model, self._version = model, version
        self._signing_key = signing_key
        self._recorder = recorder
        self._metrics = metrics

    def predict(self, requests: Sequence[CheckedRequest]) -> Sequence[Answer | Exception]:
        """Return an answer or an error for each request, in order. Answers are recorded.

        If the model fails, each request is tried alone: one bad request must not fail its batch.
        """
        if len(requests) > 1 and sum(each.checked.rows for each in requests) > _MAX_BATCH_ROWS:
            half = len(requests) // 2
            return [*self.predict(requests[:half]), *self.predict(requests[half:])]
        version = requests[0].version
        try:
            inputs = version.contract.columns([each.checked for each in requests])
            columns = version.answer(version.contract.concatenate(inputs))
        except Exception as error:  # noqa: BLE001 - returned; DataPlane.infer raises and logs it
            if len(requests) > 1:
                return [outcome for each in requests for outcome in self.predict([each])]
            flags = requests[0].checked.flags
            if not flags:
                return [error]
            # The policy allows the value, but the model cannot handle it.
            return [RequestError("; ".join([*flags, "the model has no answer for this"]))]
        lists = {name: values.tolist() for name, values in columns.items()}
        answers: list[Answer] = []
        now = time.perf_counter()
        end = 0
        for request in requests:
            call, checked = request.call, request.checked
            rows, flags = checked.rows, checked.flags
            begin, end = end, end + rows
            synthetic = call.is_synthetic
            prediction = PredictionId(call.request_id, self._version, rows, call.time, synthetic)
            signed = sign(self._signing_key, self._model, prediction)
            own_columns = {name: values[begin:end] for name, values in columns.items()}
            own_lists = {name: values[begin:end] for name, values in lists.items()}
            answers.append(Answer(signed, rows, checked.outputs, own_columns, own_lists, flags))
            self._metrics.observe_request(call.protocol, OK, now - call.started)
            if flags:
                self._metrics.flagged.inc()
            if synthetic:
                self._metrics.synthetic.inc()
        self._metrics.rows.inc(end)
        self._recorder.write_batch(requests, inputs, lists, now)
        return answers


def create_data_plane(
    model: str,
    version: int,
    signing_key: bytes,
    spool: SpoolWriter,
    metrics: Metrics,
    *,
    synthetic_clients: frozenset[str] = frozenset(),
) -> DataPlane:
    """Connect the parts of the request path."""
    metrics.spool_bytes.set_function(lambda: spool.used_bytes)
    recorder = Recorder(model, version, spool, metrics)
    predictor = BatchPredictor(model, version, signing_key, recorder, metrics)
    batcher = MicroBatcher(predictor.predict)
    return DataPlane(
        model, version, batcher, recorder, metrics, synthetic_clients=synthetic_clients
    )
