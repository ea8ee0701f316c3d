"""The concept watch: the live loss of labelled rows against what the gate measured."""

import math
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from fake_platform import FakePlatform
from kills import killed_at
from pump import LABELLED_HEADS, MODEL, Rows, make_version, predictions, rows

from watchkeeper.core.block_means import mean_of_dependent
from watchkeeper.core.events import ConceptDrifted, EpisodeChanged, Event, Promoted
from watchkeeper.core.gate_report import HeldOutLoss
from watchkeeper.core.policies import DriftPolicy, override
from watchkeeper.core.record import LabelRecord, Prediction
from watchkeeper.core.tasks import task_of
from watchkeeper.core.tasks.base import Labelled
from watchkeeper.core.truths import truths_of
from watchkeeper.drift.concept.status import ConceptStatus
from watchkeeper.drift.concept.watch import ConceptWatch
from watchkeeper.drift.lease import WatchLease
from watchkeeper.drift.metrics import SidecarCollector
from watchkeeper.drift.settings import SidecarSettings
from watchkeeper.drift.status import DriftStatus, SidecarStatus, drift_as_json
from watchkeeper.drift.watch import Watch
from watchkeeper.ledger import Ledger, migrate
from watchkeeper.ledger.concept_blocks import ConceptBlock, blocks, save_block
from watchkeeper.ledger.episodes import episodes
from watchkeeper.ledger.events import emit, history
from watchkeeper.ledger.records import store_records
from watchkeeper.ledger.reports import reports
from watchkeeper.ledger.spools import SpoolState

BLOCK = 20
CHANGES = {
    "window": 200,
    "every": 50,
    "concept_block": BLOCK,
    "concept_alarm_rows": 100_000.0,
    "concept_label_delay": 5000.0,
    "minimum_labels": 100,
    "minimum_positives": 0,
    "training_distance": 0.0,
    "training_distance_rows": 0,
}
FAILURE = "failure"
READ_FEW = {"limit": 40, "until": math.inf}


def truth_of(data: Rows, seed: int, *, flipped: float = 0.0) -> list[float]:
    """Return labels that follow from the scores, but for a share of them."""
    rng = np.random.default_rng(seed)
    labels = rng.random(len(data["score"])) < np.array(data["score"])
    return (labels ^ (rng.random(len(labels)) < flipped)).astype(float).tolist()


def held_out_loss(reference: Rows) -> HeldOutLoss:
    labelled = Labelled(np.array(truth_of(reference, 7)), {"score": np.array(reference["score"])})
    losses = task_of(LABELLED_HEADS[0]).losses(labelled, 1.0)
    return HeldOutLoss(("history",), len(losses), BLOCK, mean_of_dependent(losses))


def concept_metrics(status: DriftStatus) -> dict[str, float]:
    """Return the metrics of the concept watch that have a value."""
    families = SidecarCollector(SidecarStatus(MODEL, 1, drift=status)).collect()
    return {
        family.name: family.samples[0].value
        for family in families
        if family.name.startswith("watchkeeper_concept_") and family.samples
    }


class WatchedLabels:
    """A version in production whose rows get labels, and a watch."""

    def __init__(self, folder: Path, ledger: Ledger, **changes: Any) -> None:
        self.ledger, self.platform, self.sent = ledger, FakePlatform(), 0
        self._settings = SidecarSettings(MODEL, 1, folder / "version", folder, "", "", 0)
        self.policy = override(DriftPolicy(), {**CHANGES, **changes})
        reference = rows(2000, 1)
        self.losses = {FAILURE: held_out_loss(reference)}
        self._manifest = make_version(
            self._settings.model_folder, reference, self.policy, self.losses
        )
        emit(ledger, Event("promoted", MODEL, 1, 1.0, "first", Promoted()))
        self.restart()

    def restart(self, clock: Callable[[], float] = time.time) -> None:
        """Replace the watch by one of another process."""
        lease = WatchLease(lambda: self.platform, MODEL, 1)  # type: ignore[arg-type,return-value]
        self._watch = Watch(
            self._settings, self.ledger, lease, self._manifest, self.policy, clock=clock
        )

    def serve(self, data: Rows, labels: list[float] | None = None) -> list[Prediction]:
        """Store a request for each row, and its label if it is known."""
        sent = predictions(data, first=self.sent)
        self.sent += len(sent)
        self.store(sent)
        if labels is not None:
            self.label(sent, labels)
        return sent

    def store(self, sent: list[Prediction], version: int = 1) -> None:
        store_records(self.ledger, sent, [], SpoolState(f"s{version}", MODEL, version, 0.0))

    def label(self, sent: list[Prediction], labels: list[float], *, later: float = 1.0) -> None:
        records = [
            LabelRecord(p.id, 0, MODEL, p.version, value, p.time + later, "test", FAILURE)
            for p, value in zip(sent, labels, strict=True)
        ]
        store_records(self.ledger, [], records, SpoolState("s", MODEL, 1, 0.0))

    def serve_labelled(self, count: int, seed: int, *, flipped: float = 0.0) -> None:
        data = rows(count, seed)
        self.serve(data, truth_of(data, seed, flipped=flipped))

    def watch(self) -> DriftStatus:
        while self._watch.run_once():
            pass
        assert self._watch.status is not None
        return self._watch.status

    def concept(self) -> ConceptStatus:
        (status,) = self.watch().concept
        return status

    def stored(self) -> list[Any]:
        return blocks(self.ledger, MODEL, 1, FAILURE)

    def states(self) -> list[str]:
        return [e.details.state for e in history(self.ledger, MODEL, kind=EpisodeChanged)]


@pytest.fixture
def version(tmp_path: Path, ledger: Ledger) -> WatchedLabels:
    return WatchedLabels(tmp_path, ledger)


def test_a_concept_change_alone_opens_an_episode_and_starts_one_run(
    version: WatchedLabels,
) -> None:
    version.serve_labelled(1000, 2)
    status = version.concept()
    assert status.state == "watching", status.reason
    assert status.judged == 1000 // BLOCK
    assert episodes(version.ledger, MODEL) == []
    version.serve_labelled(600, 3, flipped=0.3)
    status = version.concept()
    assert status.state == "drifted"
    assert (status.loss.low or 0.0) > (status.limit or 1.0) > (status.baseline.mean.value or 1.0)
    (episode,) = episodes(version.ledger, MODEL)
    assert (episode.cause, episode.state) == ("concept", "training")
    assert episode.onset == pytest.approx(1000 + 1000, abs=3 * BLOCK)
    assert "drifted" not in {report.verdict for report in reports(version.ledger, MODEL, 1)}
    version.restart()
    version.watch()
    (run,) = version.platform.created
    assert run.trigger == "concept drift of failure"
    (event,) = history(version.ledger, MODEL, kind=ConceptDrifted)
    assert event.id == f"{MODEL}-v1-e1/concept-drift/failure"
    assert event.details.loss > event.details.limit > event.details.baseline
    assert event.details.labelled == event.details.rows
    assert event.details.policy == msgspec.to_builtins(version.policy)
    changes = history(version.ledger, MODEL, kind=EpisodeChanged)
    assert [(e.details.state, e.details.cause) for e in changes] == [
        ("waiting-for-labels", "concept"),
        ("training", "concept"),
    ]
    assert changes[0].reason.startswith("concept drift of failure: the mean loss is")


def test_without_retrain_a_concept_drift_is_reported_and_starts_no_run(
    tmp_path: Path, ledger: Ledger
) -> None:
    version = WatchedLabels(tmp_path, ledger, retrain=False)
    version.serve_labelled(400, 2)
    version.serve_labelled(600, 3, flipped=0.3)
    assert version.concept().state == "drifted"
    assert version.states() == ["waiting-for-labels", "given-up"]
    assert version.platform.created == []
    assert len(history(ledger, MODEL, kind=ConceptDrifted)) == 1


def test_an_episode_of_a_concept_drift_that_passes_ends_clean(
    tmp_path: Path, ledger: Ledger
) -> None:
    version = WatchedLabels(tmp_path, ledger, minimum_labels=10**9, concept_effect=1.0)
    version.serve_labelled(400, 2)
    version.serve_labelled(400, 3, flipped=0.3)
    assert version.concept().state == "drifted"
    version.serve_labelled(2000, 4)
    assert version.concept().state == "watching"
    assert version.states() == ["waiting-for-labels", "clean"]
    assert "the loss on labelled rows is below its limit again" in episodes(ledger, MODEL)[0].reason


def test_rows_that_nobody_labels_do_not_end_a_concept_drift(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "__kwdefaults__", READ_FEW)
    version = WatchedLabels(
        tmp_path, ledger, minimum_labels=10**9, concept_label_delay=0.0, label_timeout=1e9
    )
    version.serve_labelled(400, 2)
    version.serve_labelled(400, 3, flipped=0.3)
    before = version.concept()
    version.serve(rows(1200, 4))
    for _ in range(2):
        status = version.concept()
        assert (status.state, status.judged) == ("drifted", before.judged)
        assert status.skipped >= READ_FEW["limit"]
        version.restart()
    assert version.states() == ["waiting-for-labels"]


def test_an_episode_of_a_concept_drift_does_not_end_when_the_baseline_is_gone(
    tmp_path: Path, ledger: Ledger
) -> None:
    version = WatchedLabels(tmp_path, ledger, minimum_labels=10**9)
    version.serve_labelled(400, 2)
    version.serve_labelled(400, 3, flipped=0.3)
    assert version.concept().state == "drifted"
    (tmp_path / "version" / "gate.json").write_text("{}")
    version.restart()
    version.serve_labelled(1000, 4)
    assert version.concept().state == "not available"
    assert version.states() == ["waiting-for-labels"]


def test_a_sidecar_that_no_longer_watches_publishes_no_concept_drift(
    version: WatchedLabels,
) -> None:
    version.serve_labelled(400, 2)
    version.serve_labelled(600, 3, flipped=0.3)
    assert version.concept().state == "drifted"
    emit(version.ledger, Event("promoted-2", MODEL, 2, 1e6, "second", Promoted()))
    status = version.watch()
    assert (status.watching, status.concept) == (False, ())
    assert concept_metrics(status) == {}


def test_blocks_of_the_future_do_not_stop_the_watch(tmp_path: Path, ledger: Ledger) -> None:
    version = WatchedLabels(tmp_path, ledger)
    version.serve_labelled(400, 2)
    ahead = predictions(rows(20, 3), first=10**6)
    save_block(ledger, MODEL, 1, FAILURE, ConceptBlock(ahead[0].time, ahead[-1].time, 20, 20, 1.0))
    version.restart(clock=lambda: 5000.0)
    assert version.concept().judged == 400 // BLOCK
    version.serve_labelled(200, 4)
    assert version.concept().judged == 600 // BLOCK
    version.restart(clock=lambda: 1e9)
    assert version.concept().judged == 600 // BLOCK + 1


def test_labels_that_arrive_by_their_outcome_raise_no_alarm(version: WatchedLabels) -> None:
    data = rows(1500, 2)
    labels = truth_of(data, 2)
    sent = version.serve(data)
    early = [n for n, value in enumerate(labels) if value]
    version.label([sent[n] for n in early], [1.0] * len(early))
    for _ in range(2):
        status = version.concept()
        assert (status.state, status.judged) == ("waiting for labels", 0)
        version.restart()
    late = [n for n, value in enumerate(labels) if not value]
    version.label([sent[n] for n in late], [0.0] * len(late), later=900.0)
    status = version.concept()
    assert (status.state, status.judged) == ("watching", 1500 // BLOCK)
    assert episodes(version.ledger, MODEL) == []


def test_a_block_without_enough_labels_is_skipped_after_the_delay(
    version: WatchedLabels,
) -> None:
    data = rows(400, 2)
    sent = version.serve(data)
    version.label(sent[40:], truth_of(data, 2)[40:])
    assert version.stored() == []
    assert version.concept().judged == 0, "the first blocks have no labels yet, and come first"
    later = predictions(rows(200, 3), first=6000)
    version.store(later)
    status = version.concept()
    assert (status.judged, status.skipped) == (360 // BLOCK, 2)
    assert status.labelled == 360
    assert version.stored()[0].skipped == "0 of 20 rows were labelled in time"


def test_a_sample_of_labels_counts_after_the_delay_if_the_policy_declares_it(
    tmp_path: Path, ledger: Ledger
) -> None:
    version = WatchedLabels(tmp_path, ledger, concept_label_share=0.3, concept_block=60)
    data = rows(1200, 2)
    labels = truth_of(data, 2)
    sent = version.serve(data)
    version.label(sent[::2], labels[::2])
    assert version.concept().judged == 0
    version.store(predictions(rows(200, 3), first=7000))
    status = version.concept()
    assert (status.state, status.judged, status.labelled) == ("watching", 20, 600)
    assert status.loss.value == pytest.approx(version.losses[FAILURE].mean.value, rel=0.5)


def test_synthetic_and_refused_rows_and_answers_of_other_versions_do_not_count(
    version: WatchedLabels,
) -> None:
    data = rows(400, 2)
    sent = version.serve(data, truth_of(data, 2))
    before = version.concept()
    wrong = predictions(rows(300, 3), first=2000)
    synthetic = [msgspec.structs.replace(p, synthetic=True) for p in wrong[:100]]
    refused = [
        msgspec.structs.replace(p, status="INVALID_ARGUMENT", inputs={}, outputs={}, rows=0)
        for p in wrong[100:200]
    ]
    other = [msgspec.structs.replace(p, version=2) for p in wrong[200:]]
    version.store(synthetic + refused)
    version.store(other, version=2)
    version.label(wrong, [1.0 - round(x) for x in rows(300, 3)["score"]])
    assert version.concept() == before
    assert sum(block.rows for block in version.stored()) == len(sent)


def test_of_several_labels_the_latest_counts(version: WatchedLabels) -> None:
    data = rows(400, 2)
    labels = truth_of(data, 2)
    sent = version.serve(data)
    version.label(sent, labels, later=50.0)
    version.label(sent, [1.0 - value for value in labels], later=10.0)
    version.label(sent, labels, later=50.0)
    assert version.concept().loss.value == pytest.approx(
        np.mean((np.array(data["score"]) - labels) ** 2)
    )


def test_rows_of_a_broken_sensor_are_not_judged(version: WatchedLabels) -> None:
    version.serve_labelled(400, 2)
    data = rows(400, 3)
    data["vibration"] = [999.0] * 400
    data["score"] = [0.99] * 400
    version.serve(data, [0.0] * 400)
    version.serve_labelled(400, 4)
    status = version.concept()
    assert status.state == "watching"
    assert status.skipped >= 400 // BLOCK
    assert "broken sensors: vibration" in {block.skipped for block in version.stored()}
    assert episodes(version.ledger, MODEL) == []


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        ("{}", "is not valid"),
        (
            '{"passed":true,"reason":"","threshold":0.5,"checks":[],"metrics":{},"rows":{}}',
            "earlier",
        ),
    ],
)
def test_a_version_without_a_measured_loss_is_not_available(
    version: WatchedLabels, tmp_path: Path, report: str, reason: str
) -> None:
    path = tmp_path / "version" / "gate.json"
    path.write_text(report)
    version.serve_labelled(400, 2)
    version.serve_labelled(400, 3, flipped=0.5)
    status = version.concept()
    assert (status.state, status.baseline, version.stored()) == ("not available", None, [])
    assert reason in status.reason
    assert episodes(version.ledger, MODEL) == []
    shown = drift_as_json(version.watch())
    assert (shown["verdict"], shown["concept"][0]["state"]) == ("clean", "not available")


def test_a_report_that_cannot_be_read_for_a_moment_is_read_later(
    version: WatchedLabels, tmp_path: Path
) -> None:
    path, away = tmp_path / "version" / "gate.json", tmp_path / "away.json"
    path.rename(away)
    version.serve_labelled(400, 2)
    with pytest.raises(OSError, match=r"gate\.json"):
        version.watch()
    away.rename(path)
    assert version.concept().state == "watching"


def test_a_loss_that_changes_too_slowly_is_not_available(
    version: WatchedLabels, tmp_path: Path
) -> None:
    path = tmp_path / "version" / "gate.json"
    path.write_text(path.read_text().replace('"unusable": ""', '"unusable": "too slow"'))
    version.serve_labelled(400, 2)
    assert (version.concept().state, version.concept().reason) == ("not available", "too slow")


def test_metrics_and_drift_show_each_head(version: WatchedLabels) -> None:
    version.serve_labelled(400, 2)
    status = version.watch()
    (shown,) = drift_as_json(status)["concept"]
    assert (shown["label"], shown["state"], shown["measure"]) == (
        FAILURE,
        "watching",
        "Brier score",
    )
    found = concept_metrics(status)
    assert found["watchkeeper_concept_available"] == 1
    assert found["watchkeeper_concept_drifted"] == 0
    assert found["watchkeeper_concept_labelled_share"] == 1
    assert found["watchkeeper_concept_loss"] < found["watchkeeper_concept_limit_loss"]


def test_another_process_decides_the_same(version: WatchedLabels) -> None:
    for seed in range(2, 8):
        version.serve_labelled(150, seed, flipped=0.0 if seed < 5 else 0.2)
        before = version.concept()
        version.restart()
        assert version.concept() == before
    assert before.state == "drifted"
    assert len(version.platform.created) == 1


def test_a_watch_killed_at_any_line_judges_each_row_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/template.db"
    migrate(url)
    template = Ledger(url)
    version = WatchedLabels(tmp_path, template, concept_alarm_rows=100.0)
    version.serve_labelled(3 * BLOCK, 3, flipped=0.5)
    template.close()

    def watch_of(ledger: Ledger) -> ConceptWatch:
        truth, *_ = truths_of(LABELLED_HEADS, LABELLED_HEADS[0])
        return ConceptWatch(
            ledger,
            MODEL,
            1,
            truth,
            baseline=version.losses[FAILURE],
            policy=version.policy,
            heads=1,
        )

    expected, kills = None, 0
    for line in range(0, 10_000, 5):
        shutil.copy(tmp_path / "template.db", tmp_path / "copy.db")
        ledger = Ledger(f"sqlite:///{tmp_path}/copy.db")
        if line:
            ended = not killed_at(
                line,
                partial(watch_of(ledger).run_once, 1e6, 1e6, 1e6),
                ("concept/watch.py", "ledger/concept_blocks.py"),
            )
            kills += 1
        survivor = watch_of(ledger)
        while survivor.run_once(1e6, 1e6, 1e6):
            pass
        found = survivor.status, blocks(ledger, MODEL, 1, FAILURE)
        expected = expected or found
        assert found == expected, line
        ledger.close()
        if line and ended:
            break
    assert kills > 10
    assert len(expected[1]) == 3
    assert expected[0].state == "drifted"
