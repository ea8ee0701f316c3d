"""What the controller tells about itself: `/metrics` for Prometheus, and `/healthz`."""

import threading
import time
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, HTTPServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CLIENT_SECONDS = 2.0


class Metrics:
    """All metrics; labels are models, dependencies and kinds, and versions that have traffic."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.weights = Gauge(
            "watchkeeper_rollout_weight_percent",
            "Share of the traffic",
            ["model", "version"],
            registry=self.registry,
        )
        self.step = Gauge(
            "watchkeeper_rollout_step_percent",
            "Traffic step of the rollout in progress, 0 without one",
            ["model"],
            registry=self.registry,
        )
        self.verdicts = Counter(
            "watchkeeper_rollout_verdicts",
            "Traffic steps by their verdict",
            ["model", "verdict"],
            registry=self.registry,
        )
        self.actions = Counter(
            "watchkeeper_rollout_actions", "Changes made", ["model", "kind"], registry=self.registry
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

    def show(self, model: str, weights: dict[int, int], before: dict[int, int], step: int) -> None:
        """Set the weights and the step; versions without traffic are forgotten."""
        for version in before.keys() - weights.keys():
            self.weights.remove(model, str(version))
        for version, weight in weights.items():
            self.weights.labels(model, str(version)).set(weight)
        self.step.labels(model).set(step)


class Health:
    """Alive while turns of every model end; one may take as long as a version takes to drain."""

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
        """A turn of a model has ended."""
        self._beats[model] = self._clock()

    def silent(self) -> list[str]:
        """Return the models of which no turn has ended lately."""
        now = self._clock()
        return [model for model, beat in self._beats.items() if now - beat >= self._patience]


def serve(metrics: Metrics, health: Health, host: str, port: int) -> HTTPServer:
    """Answer on ``host:port`` in a thread, one client at a time; raises OSError."""

    class Handler(BaseHTTPRequestHandler):
        timeout = CLIENT_SECONDS

        def do_GET(self) -> None:
            """Answer one request."""
            if self.path == "/metrics":
                self._answer(200, generate_latest(metrics.registry), CONTENT_TYPE_LATEST)
            elif self.path == "/healthz":
                silent = ", ".join(health.silent())
                told = f"no turn has ended lately: {silent}\n" if silent else "ok\n"
                self._answer(503 if silent else 200, told.encode())
            else:
                self._answer(404, b"here are /metrics and /healthz\n")

        def _answer(self, status: int, body: bytes, kind: str = "text/plain") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Scrapes are no news."""

    server = HTTPServer((host, port), Handler)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server
