"""The metrics of a sidecar, made when they are asked for from what it holds."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from watchkeeper.drift.state import Part, State

LABELS = ("model", "version")
FAILED: dict[Part, str] = {
    "ledger": "Calls that the ledger failed",
    "shipping": "Turns of the shipping that failed otherwise",
    "watch": "Turns of the watch that failed",
    "keeper": "Turns of the keeping, of retention and forgetting, that failed",
}


class SidecarCollector(Collector):
    """Tells prometheus about one sidecar; every metric carries model and version."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._labels = (state.model, str(state.version))

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics as they are now."""
        state, view = self._state, self._state.view
        yield self._counter("records_shipped", "Records stored in the ledger", state.shipped)
        yield self._counter("records_lost", "Records the ledger will never have", state.lost)
        yield self._counter("records_torn", "Lines cut off by a killed server", state.torn)
        yield self._counter("requests_shed", "Requests turned away unread", state.shed)
        for part, told in FAILED.items():
            yield self._counter(f"{part}_errors", told, state.errors[part])
        yield self._gauge(
            "shipping_lag_seconds", "Age of what is known to be in the ledger", state.lag()
        )
        yield self._gauge("watching", "1 on the sidecar that watches", view.get("watching", False))
        yield self._gauge(
            "window_rows", "Answered rows of the last window", view.get("window", {}).get("rows", 0)
        )
        yield self._gauge(
            "drifted", "1 while the last window is drifted", view.get("verdict") == "drifted"
        )
        yield from self._features(view.get("features", []))
        broken = GaugeMetricFamily(
            "watchkeeper_sensor_broken", "1 while a sensor is broken", labels=(*LABELS, "column")
        )
        for column in view.get("sensors", {}):
            broken.add_metric((*self._labels, column), 1)
        yield broken
        episode = GaugeMetricFamily(
            "watchkeeper_episode", "1 for the newest episode", labels=(*LABELS, "episode", "state")
        )
        if view.get("episode"):
            newest = view["episode"]
            episode.add_metric((*self._labels, newest["id"], newest["state"]), 1)
        yield episode

    def _features(self, features: list[dict[str, float]]) -> Iterator[Metric]:
        told = {
            "p_value": "Corrected p-value of the last window",
            "effect_size": "Effect size of the last window, from 0 to 1",
            "null_threshold": "Effect size that counts as drift",
            "z": "Z-score of the last window's mean",
            "drifted": "1 while the feature is drifted",
        }
        for key, help_text in told.items():
            family = GaugeMetricFamily(
                f"watchkeeper_feature_{key}", help_text, labels=(*LABELS, "feature")
            )
            for feature in features:
                if feature[key] is not None:
                    family.add_metric((*self._labels, str(feature["name"])), float(feature[key]))
            yield family

    def _counter(self, name: str, help_text: str, value: float) -> Metric:
        family = CounterMetricFamily(f"watchkeeper_{name}", help_text, labels=LABELS)
        family.add_metric(self._labels, value)
        return family

    def _gauge(self, name: str, help_text: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"watchkeeper_{name}", help_text, labels=LABELS)
        family.add_metric(self._labels, float(value))
        return family
