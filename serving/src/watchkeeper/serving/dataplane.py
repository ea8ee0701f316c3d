"""The one way of a request, whatever protocol it came by:

columns → contract → engine → answer → record → spool.

Everything runs in the event loop's thread. A request is checked alone; then the rows of all that
came together go through the model at once, and one line records them. An answer is given out
after that, so that its record is in the kernel's hands by then.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from watchkeeper.contracts.answer import Columns
from watchkeeper.contracts.prediction_id import PredictionId, sign
from watchkeeper.contracts.record import OK, Answered, Prediction, Protocol, Round
from watchkeeper.contracts.signature import Output
from watchkeeper.serving.contract import Checked
from watchkeeper.serving.metrics import Metrics
from watchkeeper.serving.refusals import ELSEWHERE, Broken, NotFound, Refused, Unavailable
from watchkeeper.serving.rounds import Rounds
from watchkeeper.serving.spool import Spool
from watchkeeper.serving.tensors import Tensor, Values
from watchkeeper.serving.version import Version

logger = logging.getLogger(__name__)

MAX_CLIENT = 255
_HEX = frozenset("0123456789abcdef")
_MOST_ROWS = 4096  # of several requests together, so that no line grows with how many ask
_encoder = msgspec.json.Encoder(enc_hook=np.ndarray.tolist)  # of columns that came as arrays


class Call(msgspec.Struct, frozen=True, gc=False):
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


class Request(msgspec.Struct, frozen=True, gc=False):
    """A request, decoded; ``outputs`` are the names that it asks for, none for all.

    ``subject`` names the machine or person that it is about, empty if the client did not say.
    """

    tensors: Sequence[Tensor]
    outputs: Sequence[str] = ()
    subject: str = ""


_NOTHING = Request(())  # of which nothing is known yet


class Answer(msgspec.Struct, frozen=True, gc=False):
    """An answer, recorded and ready to be encoded; each column has shape (rows,), or is a list."""

    prediction_id: str
    rows: int
    outputs: tuple[Output, ...]
    columns: Columns
    lists: dict[str, list[Any]]
    flags: list[str]


class _Asked(msgspec.Struct, frozen=True, gc=False):
    """A request that the contract has let through."""

    call: Call
    loaded: Version
    checked: Checked
    outputs: tuple[Output, ...]
    subject: str


class DataPlane:
    """Serves one version of one model, once it is loaded."""

    def __init__(
        self, model: str, version: int, key: bytes, spool: Spool, metrics: Metrics
    ) -> None:
        self.model = model
        self.version = version
        self.key = key
        self.spool = spool
        self.metrics = metrics
        self.draining = False
        metrics.spool_bytes.set_function(lambda: spool.used)
        self._loaded: Version | None = None
        self._rounds: Rounds[_Asked, Answer] = Rounds(self._answer)

    @property
    def ready(self) -> bool:
        """Whether requests should come here: the version is proven and the process stays."""
        return self._loaded is not None and not self.draining

    @property
    def cost(self) -> float:
        """How many seconds the model took for a request of late, those in one round together."""
        return self._rounds.cost

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

    async def infer(
        self, call: Call, model: str, version: str, read: Callable[[], Request]
    ) -> Answer:
        """Answer a request and record it; ``read`` decodes its body.

        Raises:
            Refused: it was refused and recorded so.
        """
        request = _NOTHING
        try:
            loaded = self._find(model, version)
            request = read()
            outputs = loaded.contract.outputs(request.outputs)
            checked = loaded.contract.check(request.tensors)
            asked = _Asked(call, loaded, checked, outputs, request.subject)
            return await self._rounds.ask(asked)
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
        latency = time.perf_counter() - call.started
        self.metrics.observe(call.protocol, refused.grpc, latency)
        record = Prediction(
            id=call.request,
            attempt=call.attempt,
            model=self.model,
            version=self.version,
            protocol=call.protocol,
            client=call.client,
            time=call.time,
            latency=latency,
            status=refused.grpc,
            error=str(refused),
            subject=subject,
        )
        self._keep(record, 1, call.time)

    def _find(self, model: str, version: str) -> Version:
        if model != self.model or version not in ("", str(self.version)):
            asked = f"{model!r} version {version!r}" if version else f"{model!r}"
            here = f"{self.model!r} {self.version} is"
            raise NotFound(f"model {asked} is not served here, {here}; {ELSEWHERE}")
        loaded = self._loaded
        if loaded is None:
            raise Unavailable(f"model {self.model!r} {self.version} is still loading; try again")
        return loaded

    def _answer(self, asked: Sequence[_Asked]) -> Sequence[Answer | Exception]:
        """Answer a round; of each that has no answer, say why."""
        if len(asked) > 1 and sum(each.checked.rows for each in asked) > _MOST_ROWS:
            half = len(asked) // 2
            return [*self._answer(asked[:half]), *self._answer(asked[half:])]
        loaded = asked[0].loaded
        try:
            inputs = loaded.contract.columns([each.checked for each in asked])
            columns = loaded.answer(loaded.contract.together(inputs))
        except Exception as error:  # noqa: BLE001 - an outcome: :meth:`infer` tells and logs it
            if len(asked) > 1:  # who asks for what the model cannot answer takes nobody along
                return [outcome for each in asked for outcome in self._answer([each])]
            flags = asked[0].checked.flags
            if not flags:
                return [error]
            # The policy would answer, but the model itself has none for what it never knew.
            return [Refused("; ".join([*flags, "the model has no answer for this"]))]
        lists = {name: values.tolist() for name, values in columns.items()}
        answers: list[Answer] = []
        now = time.perf_counter()
        end = 0
        for each in asked:
            call, checked = each.call, each.checked
            rows, flags = checked.rows, checked.flags
            begin, end = end, end + rows
            prediction = PredictionId(call.request, self.version, rows, call.time)
            signed = sign(self.key, self.model, prediction)
            mine = {name: values[begin:end] for name, values in columns.items()}
            own = {name: values[begin:end] for name, values in lists.items()}
            answers.append(Answer(signed, rows, each.outputs, mine, own, flags))
            self.metrics.observe(call.protocol, OK, now - call.started)
            if flags:
                self.metrics.flagged.inc()
        self.metrics.rows.inc(end)
        self._record(asked, inputs, lists, now)
        return answers

    def _record(
        self,
        asked: Sequence[_Asked],
        inputs: dict[str, list[Values]],
        outputs: dict[str, list[Any]],
        now: float,
    ) -> None:
        """Record a round; ``now`` is the time of its answers on the performance counter."""
        answered = []
        for each in asked:
            call, checked = each.call, each.checked
            answered.append(
                Answered(
                    call.request,
                    call.attempt,
                    call.protocol,
                    call.client,
                    call.time,
                    now - call.started,
                    checked.rows,
                    checked.flags,
                    each.subject,
                )
            )
        line = Round(self.model, self.version, answered, inputs, outputs)
        self._keep(line, len(answered), answered[0].time)

    def _keep(self, line: Round | Prediction, records: int, since: float) -> None:
        """Write a line of so many records, the first of which arrived at ``since``.

        What finds no room is counted.
        """
        if self.spool.write(_encoder.encode(line) + b"\n"):
            self.metrics.records.inc(records)
        else:
            self.spool.lose(records, since)
            self.metrics.lost.inc(records)
