"""The HTTP endpoints of the controller: ``/metrics`` for Prometheus, and ``/healthz``."""

import threading
import time
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CLIENT_SECONDS: Final = 2.0  # a client that sends nothing for this time is disconnected


class RolloutMetrics:
    """All metrics. Label values are models, dependencies, kinds, and versions with traffic."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.weights = Gauge(
            "watchkeeper_rollout_weight_percent",
            "Share of the traffic",
            ["model", "version"],
            registry=self.registry,
        )
        self.canary_percent = Gauge(
            "watchkeeper_rollout_canary_percent",
            "Canary step of the rollout in progress, 0 without one",
            ["model"],
            registry=self.registry,
        )
        self.unregistered = Gauge(
            "watchkeeper_rollout_production_unregistered",
            "1 where the registry does not name the version in production",
            ["model"],
            registry=self.registry,
        )
        self.training_failing = Gauge(
            "watchkeeper_rollout_training_failing",
            "1 where no version is by the code in force, because the last training run failed",
            ["model"],
            registry=self.registry,
        )
        self.problems = Gauge(
            "watchkeeper_rollout_gateway_problems",
            "What the gateway does not do for the model, such as a policy that it does not apply",
            ["model"],
            registry=self.registry,
        )
        self.verdicts = Counter(
            "watchkeeper_rollout_verdicts",
            "Finished canary steps by verdict",
            ["model", "verdict"],
            registry=self.registry,
        )
        self.actions = Counter(
            "watchkeeper_rollout_actions",
            "Actions, also Wait",
            ["model", "kind"],
            registry=self.registry,
        )
        self.errors = Counter(
            "watchkeeper_rollout_errors",
            "Failed calls of a dependency",
            ["model", "dependency"],
            registry=self.registry,
        )
        self.leader = Gauge(
            "watchkeeper_rollout_leader",
            "1 where this process holds the model's lease",
            ["model"],
            registry=self.registry,
        )
        self.turns = Histogram(
            "watchkeeper_rollout_turn_seconds",
            "Duration of a turn",
            ["model"],
            registry=self.registry,
        )

    def set_traffic(
        self, model: str, weights: dict[int, int], before: dict[int, int], canary_percent: int
    ) -> None:
        """Set weights and canary step. Versions of ``before`` without traffic are removed."""
        for version in before.keys() - weights.keys():
            self.weights.remove(model, str(version))
        for version, weight in weights.items():
            self.weights.labels(model, str(version)).set(weight)
        self.canary_percent.labels(model).set(canary_percent)


class Health:
    """Healthy while the turns of every model end. Each must end within ``patience`` seconds."""

    def __init__(
        self,
        models: Iterable[str],
        patience: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._patience = patience
        self._clock = clock
        self._beats = dict.fromkeys(models, clock())

    def beat(self, model: str) -> None:
        """Note that a turn of a model has ended."""
        self._beats[model] = self._clock()

    def silent(self) -> list[str]:
        """Return the models whose turns have not ended in time."""
        now = self._clock()
        return [model for model, beat in self._beats.items() if now - beat >= self._patience]


def serve(metrics: RolloutMetrics, health: Health, host: str, port: int) -> HTTPServer:
    """Answer on ``host:port`` in a thread, one client at a time.

    Raises:
        OSError: the address cannot be used.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = CLIENT_SECONDS

        def do_GET(self) -> None:
            """Answer one request."""
            if self.path == "/metrics":
                self._answer(200, generate_latest(metrics.registry), CONTENT_TYPE_LATEST)
            elif self.path == "/healthz":
                silent = ", ".join(health.silent())
                text = f"no turn has ended lately: {silent}\n" if silent else "ok\n"
                self._answer(503 if silent else 200, text.encode())
            else:
                self._answer(404, b"not found; there are /metrics and /healthz\n")

        def _answer(self, status: int, body: bytes, kind: str = "text/plain") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Do not log requests: they are scrapes."""

    server = HTTPServer((host, port), Handler)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server
