"""A model without any truth: it is trained, judged by what it marks, and replaced after a drift."""

from collections.abc import Iterator
from pathlib import Path

import bearings
import msgspec
import numpy as np
import pumps
import pytest
from bearing import UNUSUAL
from sklearn.ensemble import IsolationForest

from watchkeeper.core.gate_report import GateReport, read_report
from watchkeeper.core.names import PRODUCTION, model_uri
from watchkeeper.ledger import Ledger, migrate
from watchkeeper.ledger.episodes import Episode, save_episode
from watchkeeper.pipeline import OfflineModel, load
from watchkeeper.registry import Registry
from watchkeeper.training import CannotTrainError
from watchkeeper.training.check import check
from watchkeeper.training.declaration import Gate, Head, Parameters
from watchkeeper.training.fit import fit_head
from watchkeeper.training.history import read_history
from watchkeeper.training.run import TrainingRequest, train
from watchkeeper.training.split import split
from watchkeeper.training.training_data import TrainingData

ONSET = 50_000.0
HOT = bearings.readings(1500, seed=3, changed=True)
ANSWERS_A_DRIFT = TrainingRequest(
    UNUSUAL, "second", "a test", Parameters(), episode="drift", replaces=1
)


class Installation(msgspec.Struct, frozen=True):
    """A model whose first version serves in a regime that it does not know."""

    registry: Registry
    ledger: Ledger
    source: str
    folder: Path

    def version(self, number: int) -> tuple[OfflineModel, GateReport]:
        place = self.folder / str(number)
        if not place.exists():
            self.registry.download(model_uri(UNUSUAL.name, number), place)
        return load(place), read_report(place)


@pytest.fixture(scope="module")
def installed(
    registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("unusual")
    table = bearings.readings(4000).drop(columns=["state", "life"])
    source = pumps.database(folder / "source.db", table, "bearings")
    migrate(f"sqlite:///{folder}/ledger.db")
    ledger = Ledger(f"sqlite:///{folder}/ledger.db")
    first = msgspec.structs.replace(ANSWERS_A_DRIFT, run="first", episode=None, replaces=None)
    version = train(first, source, registry, ledger).version
    registry.set_alias(UNUSUAL.name, PRODUCTION, version)
    bearings.store_predictions(ledger, UNUSUAL.name, HOT, since=ONSET)
    save_episode(
        ledger,
        Episode("drift", UNUSUAL.name, 1, "training", ONSET, ONSET + 500, ONSET + 900, 1, "hot"),
    )
    yield Installation(registry, ledger, source, folder)
    ledger.close()


def share_marked(model: OfflineModel) -> float:
    fresh = bearings.readings(2000, seed=8, changed=True)
    answered = model.answer({name: fresh[name].to_numpy() for name in bearings.NAMES})
    return float(np.mean(answered["unusual"]))


def test_a_drift_makes_a_version_that_marks_few_rows_of_the_new_regime(
    installed: Installation,
) -> None:
    train(ANSWERS_A_DRIFT, installed.source, installed.registry, installed.ledger)
    (one, first), (two, second) = installed.version(1), installed.version(2)
    assert first.passed, first.reason
    assert second.passed, second.reason
    assert [check.name for check in second.checks] == [
        "max label rate unusual",
        "signature",
        "labels",
        "max label rate unusual on recent rows",
    ]
    assert second.metrics == {"history": {}, "recent": {}}
    assert second.rows["recent"]["rows"] >= UNUSUAL.gate.minimum_recent
    assert second.score_shift["normality"].on == "recent"
    assert share_marked(two) < 0.1 < share_marked(one)
    assert two.manifest.lineage.reference == "recent"
    assert two.manifest.lineage.labelled_rows == 0


def test_a_version_that_marks_the_new_regime_is_rejected(installed: Installation) -> None:
    def of_history(data: TrainingData) -> IsolationForest:
        forest = IsolationForest(n_estimators=50, contamination=0.02, random_state=0)
        return forest.fit(data.columns[~data.recent])

    stubborn = msgspec.structs.replace(UNUSUAL, heads=(Head("normality", train=of_history),))
    request = msgspec.structs.replace(ANSWERS_A_DRIFT, model=stubborn, run="third")
    version = train(request, installed.source, installed.registry, installed.ledger).version
    _, report = installed.version(version)
    assert not report.passed
    assert "of recent rows, at most 10.0% is allowed" in report.reason


def test_broken_values_are_not_learned_as_usual(installed: Installation) -> None:
    history = read_history(installed.source, UNUSUAL)
    typical = history.typical.copy()
    typical[:50, 1] = False
    recent = msgspec.structs.replace(
        history, key=np.array([f"p{n}" for n in range(len(history))], dtype=object), typical=typical
    )
    model = msgspec.structs.replace(
        UNUSUAL, split=msgspec.structs.replace(UNUSUAL.split, max_duplicates=1.0)
    )
    parts = split(history, recent, model)
    assert len(parts.recent_train) > 1000
    assert parts.recent_train.typical.all()
    assert not parts.unseen.typical.all()


@pytest.mark.parametrize(("old", "recent"), [(300, 10), (10, 300), (300, 0)])
def test_recent_rows_weigh_as_much_as_the_history_however_few_they_are(
    installed: Installation, old: int, recent: int
) -> None:
    history = read_history(installed.source, UNUSUAL)
    numbers = np.arange(len(history))
    every_row = msgspec.structs.replace(
        UNUSUAL.heads[0], estimator=lambda _: IsolationForest(n_estimators=2, max_samples=1.0)
    )
    fitted = fit_head(
        every_row,
        UNUSUAL,
        Parameters(),
        history.where(numbers < old),
        history.where(numbers >= len(history) - recent),
        blocks=numbers[:old],
    )
    assert fitted.named_steps["estimator"].max_samples_ == (2 * max(old, recent) if recent else old)


def test_a_gate_that_requires_nothing_says_so(installed: Installation, tmp_path: Path) -> None:
    model = msgspec.structs.replace(UNUSUAL, gate=Gate())
    report = check(model, installed.source, tmp_path / "version").report
    assert report.passed
    assert report.reason == "the gate requires nothing of this model"


def test_a_table_of_one_block_is_refused(tmp_path: Path) -> None:
    url = pumps.database(tmp_path / "few.db", bearings.readings(9), "bearings")
    history = read_history(url, UNUSUAL)
    nothing = history.where(np.zeros(len(history), dtype=bool))
    with pytest.raises(CannotTrainError, match="9 rows are too few: they are in 1 block"):
        split(history, nothing, UNUSUAL)
