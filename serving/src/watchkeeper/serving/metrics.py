"""Prometheus metrics of the serving path, on MLServer's metrics endpoint.

Only the one model that this process serves is ever a label: whatever clients ask for, the
number of series stays the same.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_BUCKETS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


class Metrics:
    """The metrics of one serving process."""

    def __init__(self, model: str, version: int, registry: CollectorRegistry) -> None:
        labels, values = ("model", "version"), (model, str(version))
        self._seconds = Histogram(
            "watchkeeper_request_seconds",
            "Time from arrival to record, by protocol and status",
            (*labels, "protocol", "status"),
            buckets=_BUCKETS,
            registry=registry,
        )
        self._shed = Counter(
            "watchkeeper_shed_total",
            "Requests turned away unread: overload",
            (*labels, "protocol"),
            registry=registry,
        )
        self._values = values
        self._children: dict[tuple[str, str], Histogram] = {}

        def counter(name: str, text: str) -> Counter:
            return Counter(f"watchkeeper_{name}", text, labels, registry=registry).labels(*values)

        self.rows = counter("rows_total", "Rows answered")
        self.flagged = counter("flagged_total", "Requests answered in spite of values out of range")
        self.records = counter("records_total", "Records written to the spool")
        self.lost = counter("records_lost_total", "Records that found no room in the spool")
        self.labels = counter("labels_total", "Labels accepted")
        self.refused_labels = counter("label_requests_refused_total", "Feedback requests refused")
        self.spool_bytes: Gauge = Gauge(
            "watchkeeper_spool_bytes", "Bytes in the spool at most", labels, registry=registry
        ).labels(*values)
        self.ready: Gauge = Gauge(
            "watchkeeper_ready", "1 while ready", labels, registry=registry
        ).labels(*values)

    def shed(self, protocol: str, count: int) -> None:
        """Count requests that were turned away unread."""
        self._shed.labels(*self._values, protocol).inc(count)

    def observe(self, protocol: str, status: str, seconds: float) -> None:
        """Count one request; ``status`` is one of a fixed set."""
        child = self._children.get((protocol, status))
        if child is None:
            child = self._seconds.labels(*self._values, protocol, status)
            self._children[protocol, status] = child
        child.observe(seconds)
