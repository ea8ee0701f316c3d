"""The one way of a request, whatever protocol it came by:

columns → contract → engine → answer → record → spool.

Everything runs in the event loop's thread and between two awaits. Who sends the answer has the
record written before, so that it is in the kernel's hands by then.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from watchkeeper.contracts.answer import Columns
from watchkeeper.contracts.prediction_id import PredictionId, sign
from watchkeeper.contracts.record import OK, Prediction, Protocol
from watchkeeper.contracts.signature import Output
from watchkeeper.serving.metrics import Metrics
from watchkeeper.serving.refusals import ELSEWHERE, Broken, NotFound, Refused, Unavailable
from watchkeeper.serving.rounds import Records
from watchkeeper.serving.spool import Spool
from watchkeeper.serving.tensors import Tensor
from watchkeeper.serving.version import Version

logger = logging.getLogger(__name__)

MAX_CLIENT = 255
_HEX = frozenset("0123456789abcdef")
_encoder = msgspec.json.Encoder()


class Call(NamedTuple):
    """What is known of a request before its body: who asks, when, and which try it is.

    ``request`` is the request part of the prediction id, 32 hex digits; ``time`` the arrival in
    seconds since 1970, ``started`` the same moment on the performance counter.
    """

    request: str
    attempt: int
    protocol: Protocol
    client: str
    time: float
    started: float


class Request(NamedTuple):
    """A request, decoded; ``outputs`` are the names that it asks for, none for all.

    ``subject`` names the machine or person that it is about, empty if the client did not say.
    """

    tensors: Sequence[Tensor]
    outputs: Sequence[str] = ()
    subject: str = ""


_NOTHING = Request(())  # of which nothing is known yet


class Answer(NamedTuple):
    """An answer, recorded and ready to be encoded; each column has shape (rows,)."""

    prediction_id: str
    rows: int
    outputs: tuple[Output, ...]
    columns: Columns
    flags: list[str]


class DataPlane:
    """Serves one version of one model, once it is loaded."""

    def __init__(
        self, model: str, version: int, key: bytes, spool: Spool, metrics: Metrics
    ) -> None:
        self.model = model
        self.version = version
        self.key = key
        self.spool = spool
        self._records = Records(spool, metrics)
        self.metrics = metrics
        self.draining = False
        metrics.spool_bytes.set_function(lambda: spool.used)
        self._loaded: Version | None = None

    @property
    def ready(self) -> bool:
        """Whether requests should come here: the version is proven and the process stays."""
        return self._loaded is not None and not self.draining

    def take(self, version: Version) -> None:
        """Begin to serve."""
        self._loaded = version
        self.metrics.ready.set(1)

    def drain(self) -> None:
        """Stop being ready; what arrives is still answered."""
        self.draining = True
        self.metrics.ready.set(0)

    def call(self, protocol: Protocol, headers: Mapping[str, str]) -> Call:
        """Read the headers that matter; their names are in lower case, the gateway sets two."""
        request = headers.get("x-request-id", "").replace("-", "").lower()
        attempt = headers.get("x-envoy-attempt-count", "1")
        return Call(
            request=request
            if len(request) == 32 and _HEX.issuperset(request)
            else os.urandom(16).hex(),
            attempt=int(attempt) if attempt.isdecimal() and len(attempt) < 9 else 1,
            protocol=protocol,
            client=(headers.get("x-watchkeeper-client") or headers.get("user-agent", ""))[
                :MAX_CLIENT
            ],
            time=time.time(),
            started=time.perf_counter(),
        )

    def infer(self, call: Call, model: str, version: str, read: Callable[[], Request]) -> Answer:
        """Answer a request and record it; ``read`` decodes its body.

        Raises:
            Refused: it was refused and recorded so.
        """
        request = _NOTHING
        try:
            loaded = self._find(model, version)
            request = read()
            return self._answer(call, loaded, request)
        except Refused as refused:
            self.refuse(call, refused, request.subject)
            raise
        except Exception as error:
            # The one place where anything may arrive: the client gets no traceback, the log does.
            logger.exception("request %s failed", call.request)
            broken = Broken(f"internal error; the server's log tells more under {call.request}")
            self.refuse(call, broken, request.subject)
            raise broken from error

    def refuse(self, call: Call, refused: Refused, subject: str = "") -> None:
        """Record a request that gets no answer."""
        self._record(call, refused.grpc, subject, error=str(refused))
        self._records.write()

    def write_records(self) -> None:
        """Record what was inferred by now; no answer may leave before."""
        self._records.write()

    async def recorded(self) -> None:
        """Wait until all that is inferred in this turn of the event loop is recorded together."""
        await self._records.written()

    def _find(self, model: str, version: str) -> Version:
        if model != self.model or version not in ("", str(self.version)):
            asked = f"{model!r} version {version!r}" if version else f"{model!r}"
            here = f"{self.model!r} {self.version} is"
            raise NotFound(f"model {asked} is not served here, {here}; {ELSEWHERE}")
        loaded = self._loaded
        if loaded is None:
            raise Unavailable(f"model {self.model!r} {self.version} is still loading; try again")
        return loaded

    def _answer(self, call: Call, loaded: Version, request: Request) -> Answer:
        outputs = loaded.contract.outputs(request.outputs)
        inputs, rows, flags = loaded.contract.check(request.tensors)
        try:
            columns = loaded.answer(inputs)
        except Exception as error:
            if not flags:
                raise
            # The policy would answer, but the model itself has none for what it never knew.
            raise Refused("; ".join([*flags, "the model has no answer for this"])) from error
        self._record(
            call, OK, request.subject, rows=rows, inputs=inputs, outputs=columns, flags=flags
        )
        self.metrics.rows.inc(rows)
        if flags:
            self.metrics.flagged.inc()
        prediction = PredictionId(call.request, self.version, rows, call.time)
        signed = sign(self.key, self.model, prediction)
        return Answer(signed, rows, outputs, columns, flags)

    def _record(
        self,
        call: Call,
        status: str,
        subject: str,
        *,
        rows: int = 0,
        inputs: Columns | None = None,
        outputs: Columns | None = None,
        error: str | None = None,
        flags: list[str] | None = None,
    ) -> None:
        latency = time.perf_counter() - call.started
        prediction = Prediction(
            id=call.request,
            attempt=call.attempt,
            model=self.model,
            version=self.version,
            protocol=call.protocol,
            client=call.client,
            time=call.time,
            latency=latency,
            status=status,
            rows=rows,
            inputs={name: values.tolist() for name, values in (inputs or {}).items()},
            outputs={name: values.tolist() for name, values in (outputs or {}).items()},
            error=error,
            flags=flags or [],
            subject=subject,
        )
        self._records.add(_encoder.encode(prediction) + b"\n", call.time)
        self.metrics.observe(call.protocol, status, latency)
