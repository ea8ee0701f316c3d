"""Prometheus metrics of the request path, on MLServer's metrics endpoint.

Labels contain only the model and version of this process. The number of series is therefore the
same, whatever clients ask for.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from watchkeeper.serving.certificate import Validity

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
            "Requests refused unread because of overload",
            (*labels, "protocol"),
            registry=registry,
        )
        self._values = values
        self._children: dict[tuple[str, str], Histogram] = {}

        def counter(name: str, text: str) -> Counter:
            return Counter(f"watchkeeper_{name}", text, labels, registry=registry).labels(*values)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"watchkeeper_{name}", text, labels, registry=registry).labels(*values)

        self.rows = counter("rows_total", "Rows answered")
        self.flagged = counter("flagged_total", "Requests answered with values out of range")
        self.synthetic = counter("synthetic_total", "Synthetic requests answered")
        self.records = counter("records_total", "Records written to the spool")
        self.lost = counter("records_lost_total", "Records that found no room in the spool")
        self.labels = counter("labels_total", "Labels accepted")
        self.refused_labels = counter("label_requests_refused_total", "Feedback requests refused")
        self.past_gateway = counter(
            "past_gateway_total",
            "Requests refused because they lack the token of the gateway, or TLS",
        )
        self.spool_bytes = gauge("spool_bytes", "Upper bound of the bytes in the spool")
        self.ready = gauge("ready", "1 while ready")
        # Without a certificate these have no series.
        self._certificate_begins = Gauge(
            "watchkeeper_certificate_not_before_timestamp_seconds",
            "Unix time from which the certificate of the server is valid",
            labels,
            registry=registry,
        )
        self._certificate_ends = Gauge(
            "watchkeeper_certificate_not_after_timestamp_seconds",
            "Unix time until which the certificate of the server is valid",
            labels,
            registry=registry,
        )

    def show_certificate(self, validity: Validity) -> None:
        """Show when the certificate in use is valid."""
        self._certificate_begins.labels(*self._values).set(validity.begins.timestamp())
        self._certificate_ends.labels(*self._values).set(validity.ends.timestamp())

    def count_shed(self, protocol: str) -> None:
        """Count a request that was refused unread."""
        self._shed.labels(*self._values, protocol).inc()

    def observe_request(self, protocol: str, status: str, seconds: float) -> None:
        """Count one request; ``status`` is "OK" or the gRPC name of an error."""
        child = self._children.get((protocol, status))
        if child is None:
            child = self._seconds.labels(*self._values, protocol, status)
            self._children[protocol, status] = child
        child.observe(seconds)
