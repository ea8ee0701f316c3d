"""The watch: verdicts, broken sensors, and which sidecar watches."""

from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet
import pytest
from fake_platform import FakePlatform
from pump import MODEL, Rows, make_version, predictions, rows

from watchkeeper.core.drift_report import DriftReport, FeatureReport
from watchkeeper.core.events import EpisodeChanged, Event, Promoted, SensorBroken
from watchkeeper.core.policies import DriftPolicy, override
from watchkeeper.core.record import Prediction
from watchkeeper.core.version import BrokenVersionError
from watchkeeper.drift.lease import WatchLease
from watchkeeper.drift.metrics import SidecarCollector
from watchkeeper.drift.settings import SidecarSettings
from watchkeeper.drift.status import DriftStatus, SidecarStatus, drift_as_json
from watchkeeper.drift.watch import Watch
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.episodes import episodes
from watchkeeper.ledger.events import emit, history
from watchkeeper.ledger.records import store_records
from watchkeeper.ledger.reports import reports
from watchkeeper.ledger.spools import SpoolState

WINDOW = 200
CHANGES = {"window": WINDOW, "every": 50, "minimum_labels": 10**9}


class WatchedVersion:
    """A version in production with its reference, a ledger, and a watch."""

    def __init__(self, folder: Path, ledger: Ledger, reference: Rows, **changes: Any) -> None:
        self.ledger, self.platform = ledger, FakePlatform()
        self.sent = 0
        self._settings = SidecarSettings(MODEL, 1, folder / "version", folder, "", "", 0)
        self._policy = override(DriftPolicy(), {**CHANGES, **changes})
        self._manifest = make_version(self._settings.model_folder, reference, self._policy)
        emit(ledger, Event("promoted", MODEL, 1, 1.0, "first", Promoted()))
        self.restart()

    def restart(self) -> None:
        """Replace the watch by one of another process."""
        lease = WatchLease(lambda: self.platform, MODEL, 1)  # type: ignore[arg-type,return-value]
        self._watch = Watch(self._settings, self.ledger, lease, self._manifest, self._policy)

    def serve(self, data: Rows, each: int = 1) -> list[Prediction]:
        sent = predictions(data, first=self.sent, each=each)
        self.store(sent)
        return sent

    def store(self, sent: list[Prediction]) -> None:
        self.sent += len(sent)
        store_records(self.ledger, sent, [], SpoolState("s", MODEL, 1, 0.0))

    def watch(self) -> DriftStatus:
        """Examine all complete windows and return the status."""
        while self._watch.run_once():
            pass
        assert self._watch.status is not None
        return self._watch.status

    def newest_report(self) -> DriftReport:
        report = self.watch().report
        assert report is not None
        return report

    def feature(self, name: str) -> FeatureReport:
        return next(f for f in self.newest_report().features if f.name == name)

    def reports(self) -> list[DriftReport]:
        return reports(self.ledger, MODEL, 1, limit=1000)

    def verdicts(self) -> list[str]:
        return [report.verdict for report in self.reports()]


@pytest.fixture
def version(tmp_path: Path, ledger: Ledger) -> WatchedVersion:
    return WatchedVersion(tmp_path, ledger, rows(2000, 1))


def test_a_replay_without_drift_raises_no_alarm(version: WatchedVersion) -> None:
    version.serve(rows(4000, 2))
    status = version.watch()
    assert version.verdicts() == ["clean"] * (1 + (4000 - WINDOW) // 50)
    assert status.episode is None
    assert status.report is not None
    assert status.report.window.rows == WINDOW
    assert {f.name for f in status.report.features} == {
        "grade",
        "inlet_pressure",
        "flow",
        "vibration",
        "hours",
        "score",
    }


def test_a_synthetic_load_test_is_in_no_window(version: WatchedVersion) -> None:
    version.serve(rows(400, 2))
    before = version.watch().report
    one = {name: values[:1] * 1000 for name, values in rows(1, 3, vibration_shift=60.0).items()}
    sent = predictions(one, first=version.sent)
    version.store([msgspec.structs.replace(each, synthetic=True) for each in sent])
    assert version.watch().report == before
    version.serve(rows(400, 4))
    version.watch()
    assert version.verdicts() == ["clean"] * (1 + (800 - WINDOW) // 50)
    assert not history(version.ledger, MODEL, kind=(SensorBroken, EpisodeChanged))


def test_strong_drift_opens_an_episode_within_a_window(version: WatchedVersion) -> None:
    version.serve(rows(400, 2))
    version.watch()
    version.serve(rows(WINDOW, 3, vibration_shift=15.0))
    assert version.newest_report().verdict == "drifted"
    (episode,) = episodes(version.ledger, MODEL)
    assert (episode.id, episode.state) == (f"{MODEL}-v1-e1", "waiting-for-labels")
    assert episode.onset == pytest.approx(1000 + 399, abs=101)
    vibration = version.feature("vibration")
    assert vibration.drifted
    assert vibration.z == pytest.approx(1.5, abs=0.2)
    assert vibration.p_value < 0.001 < vibration.reference_threshold < vibration.effect_size
    assert not version.feature("hours").drifted
    assert version.feature("score").drifted


def test_the_watch_detects_drift_of_a_category(version: WatchedVersion) -> None:
    data = rows(WINDOW, 2)
    data["grade"] = ["H"] * (WINDOW - 20) + ["L"] * 20
    version.serve(data)
    grade = version.feature("grade")
    assert grade.drifted
    assert grade.effect_size == pytest.approx(0.7, abs=0.05)
    assert grade.window == {"H": 0.9, "L": 0.1}
    assert grade.z is None


def test_the_episode_of_a_drift_that_passes_ends_clean(version: WatchedVersion) -> None:
    version.serve(rows(400, 2))
    version.serve(rows(200, 3, vibration_shift=15.0))
    version.serve(rows(800, 4))
    version.watch()
    events = history(version.ledger, MODEL, kind=EpisodeChanged)
    assert [e.details.state for e in events] == ["waiting-for-labels", "clean"]
    assert version.platform.created == []


def test_rows_of_large_requests_count_as_rows(version: WatchedVersion) -> None:
    version.serve(rows(1200, 2), each=30)
    assert version.newest_report().window.rows == WINDOW
    assert len(version.verdicts()) >= (1200 - WINDOW) // 60


@pytest.mark.parametrize(
    ("column", "value", "what"),
    [
        ("inlet_pressure", 300.0, "stuck"),
        ("vibration", 999.0, "stuck"),
        ("vibration", None, "missing"),
    ],
)
def test_a_broken_sensor_is_an_alert_and_never_a_drift(
    version: WatchedVersion, column: str, value: object, what: str
) -> None:
    version.serve(rows(400, 2))
    for seed in range(16):  # each window contains a few more rows of the broken sensor
        data = rows(25, 100 + seed)
        data[column] = [value] * 25
        data["score"] = [0.99] * 25
        version.serve(data)
        version.watch()
    assert "drifted" not in version.verdicts()
    assert what in version.newest_report().sensors[column].what
    assert episodes(version.ledger, MODEL) == []
    (alert,) = history(version.ledger, MODEL, kind=SensorBroken)
    assert (alert.details.column, alert.version) == (column, 1)
    assert "broken sensor" in version.feature(column).left_out
    version.serve(rows(400, 4))
    assert version.newest_report().sensors == {}
    assert version.verdicts()[-1] == "clean"


@pytest.mark.parametrize(("column", "value"), [("grade", "H"), ("grade", "X"), ("hours", 0.0)])
def test_one_category_or_zero_in_a_whole_window_is_a_stuck_sensor(
    version: WatchedVersion, column: str, value: object
) -> None:
    data = rows(WINDOW, 2)
    data[column] = [value] * WINDOW
    version.serve(data)
    report = version.newest_report()
    assert report.verdict == "undecided"
    assert report.sensors[column].what == "stuck: one value in 100% of the rows"


def test_a_category_that_fills_windows_of_the_reference_is_not_stuck(
    tmp_path: Path, ledger: Ledger
) -> None:
    reference = rows(2000, 1)
    reference["grade"] = ["L"] * 1000 + ["M"] * 1000
    version = WatchedVersion(tmp_path, ledger, reference)
    data = rows(WINDOW, 2)
    data["grade"] = ["L"] * WINDOW
    version.serve(data)
    assert version.newest_report().sensors == {}


@pytest.mark.parametrize(
    ("column", "value", "share"),
    [("grade", "X", 0.02), ("hours", 0.0, 0.2), ("vibration", 0.0, 0.5), ("hours", 5000.0, 0.02)],
)
def test_new_categories_zeros_and_values_beyond_the_range_are_no_fault(
    version: WatchedVersion, column: str, value: object, share: float
) -> None:
    data = rows(WINDOW, 2)
    for n in range(0, WINDOW, round(1 / share)):
        data[column][n] = value if column != "hours" or value == 0.0 else 5000.0 + n
    version.serve(data)
    report = version.newest_report()
    assert report.sensors == {}
    drifted = share >= 0.2
    assert report.verdict == ("drifted" if drifted else "clean")
    assert report.drifted_features == ((column,) if drifted else ())


def test_a_broken_column_leaves_only_the_scores_out_that_depend_on_it(
    tmp_path: Path, ledger: Ledger
) -> None:
    version = WatchedVersion(tmp_path, ledger, rows(2000, 1))
    path = tmp_path / "version" / "reference.parquet"
    table = pyarrow.parquet.read_table(path)
    depends = '{"score": ["vibration", "inlet_pressure"]}'
    pyarrow.parquet.write_table(table.replace_schema_metadata({"depends": depends}), path)
    data = rows(WINDOW, 2)
    data["hours"] = [7.0] * WINDOW
    data["score"] = [0.9 + n / 10_000 for n in range(WINDOW)]
    version.serve(data)
    report = version.newest_report()
    assert list(report.sensors) == ["hours"]
    assert report.drifted_features == ("score",), "the score does not depend on hours"
    data = rows(WINDOW, 3)
    data["vibration"] = [7.0] * WINDOW
    version.serve(data)
    assert "depends on broken sensors: vibration" in version.feature("score").left_out


def test_requests_refused_because_of_a_column_are_a_broken_sensor(version: WatchedVersion) -> None:
    version.serve(rows(400, 2))
    sent = predictions(rows(150, 3), first=version.sent)
    error = "column 'vibration': null is not a number"
    version.store(
        [
            msgspec.structs.replace(
                p, status="INVALID_ARGUMENT", error=error, inputs={}, outputs={}
            )
            for p in sent
        ]
    )
    report = version.newest_report()
    assert report.verdict == "undecided"
    assert "refused in 150" in report.sensors["vibration"].what
    assert list(report.sensors) == ["vibration"]


def test_a_broken_sensor_does_not_hide_the_drift_of_other_columns(version: WatchedVersion) -> None:
    data = rows(WINDOW, 3, vibration_shift=20.0)
    data["inlet_pressure"] = [300.0] * WINDOW
    version.serve(data)
    report = version.newest_report()
    assert report.verdict == "drifted"
    assert report.reason == "drift of flow, vibration"


def test_a_short_reference_has_a_note_and_raises_no_alarm(tmp_path: Path, ledger: Ledger) -> None:
    version = WatchedVersion(tmp_path, ledger, rows(600, 1), window=500, every=125)
    version.serve(rows(4000, 2))
    report = version.newest_report()
    assert set(version.verdicts()) == {"clean"}
    assert "600 rows" in report.reference.note
    assert report.reference.block_rows == 150
    version.serve(rows(500, 3, vibration_shift=20.0))
    assert version.newest_report().verdict == "drifted"


def test_another_process_continues_with_the_next_window(version: WatchedVersion) -> None:
    version.serve(rows(420, 2))
    version.watch()
    before = version.reports()
    version.restart()
    version.watch()
    assert version.reports() == before
    version.serve(rows(30, 3))
    version.watch()
    assert len(version.reports()) == len(before) + 1


def test_only_the_version_in_production_watches(version: WatchedVersion) -> None:
    emit(version.ledger, Event("next", MODEL, 2, 2.0, "second", Promoted()))
    version.serve(rows(400, 2, vibration_shift=30.0))
    status = version.watch()
    assert (status.watching, status.report, version.verdicts()) == (False, None, [])
    assert "production is version 2" in status.reason
    shown = drift_as_json(status)
    assert (shown["watching"], shown["features"], shown["verdict"]) == (False, [], "undecided")
    assert "production is version 2" in shown["reason"]


def test_only_the_holder_of_the_lease_watches(version: WatchedVersion) -> None:
    version.platform.grants_leases = False
    version.serve(rows(400, 2, vibration_shift=30.0))
    status = version.watch()
    assert not status.watching
    assert status.reason == "does not watch, another sidecar of version 1 watches"
    assert version.verdicts() == []


def test_the_error_names_a_reference_that_is_missing(
    version: WatchedVersion, tmp_path: Path
) -> None:
    (tmp_path / "version" / "reference.parquet").unlink()
    with pytest.raises(BrokenVersionError, match=r"reference\.parquet"):
        version.watch()


def test_the_body_of_drift_has_the_same_keys_with_and_without_a_report(
    version: WatchedVersion,
) -> None:
    before = drift_as_json(version.watch())
    assert (before["verdict"], before["reason"]) == (
        "undecided",
        "the first window is not complete yet",
    )
    version.serve(rows(WINDOW, 2))
    after = drift_as_json(version.watch())
    assert after.keys() - before.keys() == {"window", "reference", "format"}
    assert before.keys() == {
        "model",
        "version",
        "watching",
        "verdict",
        "reason",
        "features",
        "sensors",
        "policy",
        "cannot_alarm",
        "concept",
        "episode",
    }
    assert (after["verdict"], after["window"]["rows"], after["episode"]) == ("clean", WINDOW, None)


def test_a_feature_that_can_never_alarm_is_listed(tmp_path: Path, ledger: Ledger) -> None:
    reference = rows(2000, 1)
    reference["hours"] = [float(n) / 4 for n in range(2000)]  # rises all the time
    version = WatchedVersion(tmp_path, ledger, reference)
    status = version.watch()
    assert status.cannot_alarm == ("hours",), "before the first window"
    assert drift_as_json(status)["cannot_alarm"] == ["hours"]
    version.serve(rows(WINDOW, 2))
    assert version.newest_report().reference.cannot_alarm == ("hours",)
    assert not version.feature("hours").drifted
    (metric,) = [
        family
        for family in SidecarCollector(SidecarStatus(MODEL, 1, drift=version.watch())).collect()
        if family.name == "watchkeeper_feature_cannot_alarm"
    ]
    assert [sample.labels["feature"] for sample in metric.samples] == ["hours"]
