"""A version with several truths: each head is fitted, judged and compared on its own labels."""

from collections.abc import Iterator
from pathlib import Path

import bearings
import msgspec
import numpy as np
import pumps
import pytest
from bearing import COLUMNS, HEALTH, LIFE, STATE

from watchkeeper.core.gate_report import GateReport, read_report
from watchkeeper.core.names import PRODUCTION, model_uri
from watchkeeper.ledger import Ledger, migrate
from watchkeeper.ledger.episodes import Episode, save_episode
from watchkeeper.pipeline import OfflineModel, load
from watchkeeper.registry import Registry
from watchkeeper.training import CannotTrainError
from watchkeeper.training.declaration import DeclarationError, Gate, Head, Parameters
from watchkeeper.training.gate import labels as same_labels
from watchkeeper.training.history import read_history
from watchkeeper.training.recent import read_recent
from watchkeeper.training.run import TrainingRequest, train

ONSET = 50_000.0
HISTORY = bearings.readings(4000)
HISTORY.loc[HISTORY["id"] % 2 == 0, "life"] = np.nan  # half of the bearings still run
HISTORY.loc[HISTORY["id"] % 10 == 1, "state"] = None


class Trained(msgspec.Struct, frozen=True):
    """The first version, and the one that answers a drift."""

    ledger: Ledger
    model: OfflineModel
    reports: tuple[GateReport, GateReport]
    report_text: str


@pytest.fixture(scope="module")
def trained(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    place = tmp_path_factory.mktemp("health")
    source = pumps.database(place / "source.db", HISTORY, "bearings")
    migrate(f"sqlite:///{place}/ledger.db")
    ledger = Ledger(f"sqlite:///{place}/ledger.db")
    first = TrainingRequest(HEALTH, "first", "a test", Parameters())
    version = train(first, source, registry, ledger).version
    registry.set_alias(HEALTH.name, PRODUCTION, version)
    hot = bearings.readings(1500, seed=3, changed=True)
    state, life = (truth.task for truth in HEALTH.truths)
    bearings.store_predictions(ledger, HEALTH.name, hot, state, since=ONSET)
    later = hot.iloc[:1000]
    bearings.store_predictions(ledger, HEALTH.name, later, life, since=ONSET, name="life")
    save_episode(
        ledger,
        Episode("drift", HEALTH.name, 1, "training", ONSET, ONSET + 500, ONSET + 900, 1, "hot"),
    )
    train(
        msgspec.structs.replace(first, run="second", episode="drift", replaces=1),
        source,
        registry,
        ledger,
    )
    folders = [place / "1", place / "2"]
    for number, folder in enumerate(folders, start=1):
        registry.download(model_uri(HEALTH.name, number), folder)
    one, two = map(read_report, folders)
    text = (folders[1] / "metrics_report.txt").read_text()
    yield Trained(ledger, load(folders[0]), (one, two), text)
    ledger.close()


def test_a_head_is_measured_on_the_rows_whose_truth_is_known(trained: Trained) -> None:
    first, second = trained.reports
    assert first.passed, first.reason
    counted = first.rows["history"]
    assert counted["rows"] == pytest.approx(0.9 * 0.3 * 4000, rel=0.2)
    assert counted["life.rows"] == pytest.approx(0.5 * 0.3 * 4000, rel=0.2)
    assert counted["life.rows"] != counted["rows"]
    assert {"balanced_accuracy", "life.r2"} <= first.metrics["history"].keys()
    recent = second.rows["recent"]
    assert recent["rows"] > recent["life.rows"] > 100
    assert "life.mean_absolute_error" in trained.report_text


def test_every_floor_and_ceiling_is_a_check_under_its_name(trained: Trained) -> None:
    names = {check.name for check in trained.reports[0].checks}
    assert {
        "floor balanced_accuracy",
        "floor life.r2",
        "ceiling life.mean_absolute_error",
    } <= names


def test_a_drift_is_answered_by_one_better_head_while_no_head_is_worse(trained: Trained) -> None:
    second = trained.reports[1]
    assert second.passed, second.reason
    checks = {check.name: check for check in second.checks}
    assert checks["superior on recent rows"].passed
    assert "97.5 % interval" in checks["superior on recent rows"].reason
    assert checks["noninferior on recent rows"].passed
    assert checks["noninferior on recent rows of life"].passed
    assert checks["noninferior on the history of life"].passed


def test_the_manifest_has_both_truths_and_the_first_takes_labels_without_a_name(
    trained: Trained,
) -> None:
    state, life = trained.model.manifest.truths
    assert (state.name, state.stored_as) == ("state", ("state", ""))
    assert (life.name, life.stored_as) == ("life", ("life",))
    assert life.task.head.interval is not None


def test_recent_rows_have_the_labels_of_each_truth(trained: Trained) -> None:
    rows = read_recent(trained.ledger, HEALTH, [1], "drift").rows
    assert len(rows) == 1500
    assert len(rows.about("state")) == 1500
    assert len(rows.about("life")) == 1000
    assert rows.about("life").target.max() > 1000


def test_the_rows_of_a_truth_that_is_empty_everywhere_are_missed(tmp_path: Path) -> None:
    table = bearings.readings(300).assign(life=None)
    source = pumps.database(tmp_path / "source.db", table, "bearings")
    with pytest.raises(CannotTrainError, match="'life' is empty in all 300 rows"):
        read_history(source, HEALTH)


def test_labels_for_production_must_still_be_accepted() -> None:
    both, state, life = (model.truths for model in (HEALTH, STATE, LIFE))
    assert same_labels(both, both).passed
    assert same_labels(both, state).passed, "a new truth breaks no client"
    gone = same_labels(state, both)
    assert not gone.passed
    assert "no head has the label 'life', which production has" in gone.reason
    moved = same_labels(both, life)
    assert not moved.passed, "labels without a name would be about something else"
    assert "the first label is 'state', and 'life' in production" in moved.reason


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gate": Gate(floors={"r2": 0.5})}, "gate.floors name 'r2'.*'life.r2'"),
        ({"gate": Gate(margin={"lief": 0.5})}, "gate.margin names 'lief'.*'state', 'life'"),
        ({"gate": Gate(floors={"state.accuracy": 0.5})}, "gate.floors name 'state.accuracy'"),
        ({"heads": (*STATE.heads, *STATE.heads)}, "'state': each label can be the truth of one"),
        ({"heads": ()}, "heads has none, and a model needs one"),
    ],
)
def test_a_wrong_declaration_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        msgspec.structs.replace(HEALTH, **changes)


def test_the_name_of_a_label_has_a_greatest_length() -> None:
    head: Head = msgspec.structs.replace(LIFE.heads[0], label="l" * 64)
    with pytest.raises(DeclarationError, match="more than 63 characters"):
        msgspec.structs.replace(LIFE, heads=(head,), columns=COLUMNS)
