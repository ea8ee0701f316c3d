"""Clients without a credential, who ask all the time and should never get an answer."""

import threading
from collections import Counter
from types import TracebackType
from typing import Any

import grpc
import httpx
import tritonclient.grpc as triton_grpc
from declared_models import MODELS
from installation import Installation
from sample_requests import sample_request, sample_row
from tritonclient.utils import InferenceServerException

from watchkeeper.demo.clients import tensors
from watchkeeper.demo.plants import find

PAUSE_SECONDS = 0.05
STOP_SECONDS = 30.0


class Stranger:
    """Asks every model for a prediction over HTTP and gRPC while a block runs.

    Attributes:
        results: how many requests had each result, by model, protocol and status.
        answers: the answers that it should not have got.
    """

    def __init__(self, installation: Installation) -> None:
        self.results: Counter[tuple[str, str, str]] = Counter()
        self.answers: list[str] = []
        self._address = installation.endpoints().address
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(ask, model), daemon=True)
            for model in MODELS
            for ask in (self._over_http, self._over_grpc)
        ]

    def __enter__(self) -> "Stranger":
        """Start asking."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Stop asking."""
        self._ended.set()
        for thread in self._threads:
            thread.join(STOP_SECONDS)

    def asked(self) -> int:
        """Return the number of requests so far."""
        return self.results.total()

    def _ask(self, ask: Any, model: str) -> None:
        while not self._ended.wait(PAUSE_SECONDS):
            protocol, status, answer = ask(model)
            self.results[model, protocol, status] += 1
            if answer:
                self.answers.append(f"{model} over {protocol}: {answer}")

    def _over_http(self, model: str) -> tuple[str, str, str]:
        url = f"http://{self._address}/v2/models/{model}/infer"
        try:
            answer = httpx.post(
                url, json=sample_request(model), headers={"Host": model}, timeout=5.0
            )
        except httpx.HTTPError as error:
            return "http", type(error).__name__, ""
        text = answer.text[:300] if answer.is_success or "outputs" in answer.text else ""
        return "http", str(answer.status_code), text

    def _over_grpc(self, model: str) -> tuple[str, str, str]:
        host = [("grpc.default_authority", model)]
        with triton_grpc.InferenceServerClient(self._address, channel_args=host) as client:
            inputs = tensors(triton_grpc.InferInput, find(model).columns, sample_row(model))
            try:
                answer = client.infer(model, inputs, client_timeout=5.0)
            except (InferenceServerException, grpc.RpcError) as error:
                found = error.status() if isinstance(error, InferenceServerException) else error
                return "grpc", str(found), ""
            return "grpc", "OK", str(answer.get_response())[:300]
