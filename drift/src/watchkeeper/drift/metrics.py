"""The Prometheus metrics of a sidecar, made from its status at each scrape."""

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from watchkeeper.core.drift_report import FeatureReport
from watchkeeper.drift.concept.status import ConceptStatus
from watchkeeper.drift.status import ErrorSource, SidecarStatus

LABELS: Final = ("model", "version")
ERRORS: Final[dict[ErrorSource, str]] = {
    "ledger": "Failed calls of the ledger by the shipping thread",
    "shipping": "Other errors of the shipping thread",
    "watch": "Errors of the watch",
    "retention": "Errors of retention and deletion",
}
CONCEPT_GAUGES: Final[dict[str, tuple[str, Callable[[ConceptStatus], float | None]]]] = {
    "available": (
        "1 if the gate measured a loss that the live loss is compared with",
        lambda status: status.baseline is not None,
    ),
    "drifted": ("1 while the live loss has drifted", lambda status: status.state == "drifted"),
    "loss": ("Mean loss of the newest labelled rows", lambda status: status.loss.value),
    "baseline_loss": (
        "Mean loss on the held-out rows of the gate",
        lambda status: status.baseline.mean.value if status.baseline else None,
    ),
    "limit_loss": ("Largest mean loss that is no drift", lambda status: status.limit),
    "labelled_share": (
        "Share of the newest rows that have a label",
        lambda status: status.labelled / status.rows if status.rows else None,
    ),
    "evidence": (
        "Evidence for a drift of the loss, from 0 to 1, where it is an alarm",
        lambda status: status.evidence if status.baseline else None,
    ),
}
FEATURE_GAUGES: Final = {
    "p_value": "Corrected p-value of the newest window",
    "effect_size": "Effect size of the newest window, from 0 to 1",
    "reference_threshold": "Effect size from which a feature has drifted",
    "z": "Z-score of the mean of the newest window",
    "z_day": "Z-score of the mean of the last day",
    "drifted": "1 while the feature has drifted",
}


class SidecarCollector(Collector):
    """Yields the metrics of one sidecar. Every metric has the labels model and version."""

    def __init__(self, status: SidecarStatus) -> None:
        self._status = status
        self._labels = (status.model, str(status.version))

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        status = self._status
        yield self._counter("records_shipped", "Records stored in the ledger", status.shipped)
        yield self._counter("records_lost", "Records that never reach the ledger", status.lost)
        yield self._counter(
            "records_torn", "Incomplete lines that a killed server has left", status.torn
        )
        yield self._counter(
            "requests_shed", "Requests that were rejected because of overload", status.shed
        )
        for source, help_text in ERRORS.items():
            yield self._counter(f"{source}_errors", help_text, status.errors[source])
        yield self._gauge(
            "shipping_lag_seconds",
            "Age of the newest time up to which all records are in the ledger",
            status.shipping_lag(),
        )
        yield from self._drift()

    def _drift(self) -> Iterator[Metric]:
        drift = self._status.drift
        report = drift.report if drift else None
        yield self._gauge(
            "watching", "1 on the sidecar that watches", drift.watching if drift else False
        )
        yield self._gauge(
            "watch_failing", "1 while the watch fails", bool(self._status.watch_error)
        )
        yield self._gauge(
            "window_rows",
            "Answered rows of the newest window",
            report.window.rows if report else 0,
        )
        yield self._gauge(
            "drifted",
            "1 while the newest window has drifted",
            report is not None and report.verdict == "drifted",
        )
        yield from self._features(report.features if report else ())
        yield from self._concepts(drift.concept if drift else ())
        cannot = GaugeMetricFamily(
            "watchkeeper_feature_cannot_alarm",
            "1 for a feature that varies so much by itself that it can never alarm",
            labels=(*LABELS, "feature"),
        )
        for name in drift.cannot_alarm if drift else ():
            cannot.add_metric((*self._labels, name), 1)
        yield cannot
        broken = GaugeMetricFamily(
            "watchkeeper_sensor_broken", "1 while a sensor is broken", labels=(*LABELS, "column")
        )
        for column in report.sensors if report else ():
            broken.add_metric((*self._labels, column), 1)
        yield broken
        episode = GaugeMetricFamily(
            "watchkeeper_episode", "1 for the newest episode", labels=(*LABELS, "episode", "state")
        )
        if drift and drift.episode:
            episode.add_metric((*self._labels, drift.episode.id, drift.episode.state), 1)
        yield episode

    def _features(self, features: tuple[FeatureReport, ...]) -> Iterator[Metric]:
        for name, help_text in FEATURE_GAUGES.items():
            family = GaugeMetricFamily(
                f"watchkeeper_feature_{name}", help_text, labels=(*LABELS, "feature")
            )
            for feature in features:
                value = getattr(feature, name)
                if value is not None:  # categories have no z-score
                    family.add_metric((*self._labels, feature.name), float(value))
            yield family

    def _concepts(self, heads: tuple[ConceptStatus, ...]) -> Iterator[Metric]:
        for name, (help_text, value_of) in CONCEPT_GAUGES.items():
            family = GaugeMetricFamily(
                f"watchkeeper_concept_{name}", help_text, labels=(*LABELS, "label")
            )
            for head in heads:
                value = value_of(head)
                if value is not None:
                    family.add_metric((*self._labels, head.label), float(value))
            yield family

    def _counter(self, name: str, help_text: str, value: float) -> Metric:
        family = CounterMetricFamily(f"watchkeeper_{name}", help_text, labels=LABELS)
        family.add_metric(self._labels, value)
        return family

    def _gauge(self, name: str, help_text: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"watchkeeper_{name}", help_text, labels=LABELS)
        family.add_metric(self._labels, float(value))
        return family
