"""A load test with one payload, then a training run, then ordinary traffic: nothing drifts.

Training, MLflow, ledger and the watch of the sidecar are the real ones.
"""

import subprocess
import uuid
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pumps
import pytest

from watchkeeper.core.events import Event, Promoted
from watchkeeper.core.names import model_uri
from watchkeeper.core.record import Prediction
from watchkeeper.core.version import Manifest, read_baseline, read_manifest
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.episodes import Episode, save_episode
from watchkeeper.ledger.events import emit
from watchkeeper.ledger.records import store_records
from watchkeeper.ledger.spools import SpoolState
from watchkeeper.pipeline import load
from watchkeeper.registry import Registry
from watchkeeper.training.models import find, parameters_of
from watchkeeper.training.run import TrainingRequest, train

ROOT = Path(__file__).resolve().parents[2]
MODEL = msgspec.structs.replace(find("pump-failure"), name="pumps-under-load")
START, LOAD_TEST, AFTER = 1000.0, 100_000.0, 200_000.0
ROWS = 14_000  # of each request of the load test


class Plant:
    """A model, its ledger and its registry."""

    def __init__(self, registry: Registry, ledger: Ledger, source: str, folder: Path) -> None:
        self.registry, self.ledger, self.source, self.folder = registry, ledger, source, folder
        self.name = f"{MODEL.name}-{uuid.uuid4().hex[:8]}"
        self.url = ledger.engine.url.render_as_string(hide_password=False)

    def train(self, run: str, episode: str | None = None) -> Manifest:
        model = msgspec.structs.replace(MODEL, name=self.name)
        parameters, chosen = parameters_of(model, ["trees=20", "search=off", "onnx=off"])
        request = TrainingRequest(
            model, f"{run}-{self.name}", "a test", parameters, frozenset(chosen), episode
        )
        self.version = train(request, self.source, self.registry, self.ledger).version
        self.registry.download(model_uri(self.name, self.version), self.files)
        return read_manifest(self.files)

    @property
    def files(self) -> Path:
        return self.folder / f"version-{self.version}"

    def serve(
        self, table: pd.DataFrame, since: float, *, each: int = 1, synthetic: bool = False
    ) -> None:
        columns = {name: table[name].to_numpy() for name in MODEL.names}
        scores = load(self.files).scores(columns)
        made = [
            Prediction(
                id=uuid.uuid4().hex,
                attempt=1,
                model=self.name,
                version=self.version,
                protocol="http",
                client="a client",
                time=since + number,
                latency=0.001,
                status="OK",
                rows=each,
                inputs={n: x[at : at + each].tolist() for n, x in columns.items()},
                outputs={n: x[at : at + each].tolist() for n, x in scores.items()},
                synthetic=synthetic,
            )
            for number, at in enumerate(range(0, len(table), each))
        ]
        store_records(self.ledger, made, [], SpoolState("spool", self.name, self.version, 0.0))

    def verdicts(self) -> list[str]:
        """Let the watch of the newest version examine its requests."""
        emit(self.ledger, Event(uuid.uuid4().hex, self.name, self.version, 1.0, "", Promoted()))
        program = ROOT / "tests/support/watch_requests.py"
        done = subprocess.run(
            [ROOT / "drift/.venv/bin/python", program, self.files, self.url, str(self.version)],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return msgspec.json.decode(done.stdout, type=list[str])


@pytest.mark.parametrize(("drifted", "synthetic"), [(False, True), (False, False), (True, False)])
def test_a_load_test_with_one_payload_does_not_become_the_reference(
    registry: Registry,
    ledger: Ledger,
    history: str,
    tmp_path: Path,
    *,
    synthetic: bool,
    drifted: bool,
) -> None:
    plant = Plant(registry, ledger, history, tmp_path)
    plant.train("first")
    usual = read_baseline(plant.files)
    plant.serve(pumps.readings(1500, seed=1), START)
    one = pd.concat([pumps.readings(1, seed=9)] * 2 * ROWS, ignore_index=True)
    plant.serve(one, LOAD_TEST, each=ROWS, synthetic=synthetic)
    episode = None
    if drifted:
        episode = "an episode"
        save_episode(
            ledger,
            Episode(episode, plant.name, 1, "training", START, START, START, 1, "a test"),
        )
    manifest = plant.train("second", episode)
    baseline = read_baseline(plant.files)
    for name in pumps.NUMERIC:
        assert baseline[name].std == pytest.approx(usual[name].std, rel=0.2), name
        assert abs(baseline[name].mean - usual[name].mean) < 0.2 * usual[name].std, name
    # Without a drift the newest rows are read, and if all of them are one payload, none is left.
    expected = "recent" if drifted else ("history and recent" if synthetic else "history")
    assert manifest.lineage.reference == expected
    report = (plant.files / "metrics_report.txt").read_text()
    assert ("do not describe the traffic" in report) is not synthetic
    plant.serve(pumps.readings(1500, seed=2), AFTER)
    verdicts = plant.verdicts()
    assert len(verdicts) == 1 + (1500 - MODEL.drift.window) // MODEL.drift.every
    assert {verdict.partition(":")[0] for verdict in verdicts} == {"clean"}, verdicts


def test_ordinary_rows_are_in_the_reference_with_the_same_distribution(
    registry: Registry, ledger: Ledger, history: str, tmp_path: Path
) -> None:
    plant = Plant(registry, ledger, history, tmp_path)
    first = plant.train("first")
    plant.serve(pumps.readings(1500, seed=1), START)
    second = plant.train("second")
    assert (first.lineage.reference, second.lineage.reference) == ("history", "history and recent")
    assert np.isclose(read_baseline(plant.files)["load"].std, 10.0, rtol=0.1)
    assert "do not describe the traffic" not in (plant.files / "metrics_report.txt").read_text()
