"""A plant of pumps: versions in a real registry, and requests in a real ledger."""

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import skops.io
from simulated import MemoryPlatform
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from watchkeeper.core.answer import AnswerPolicy, Label, Risk, outputs_of
from watchkeeper.core.estimates import Estimate
from watchkeeper.core.gate_report import GateReport, Shift, write_report
from watchkeeper.core.head import Head
from watchkeeper.core.policies import DriftPolicy, RolloutPolicy
from watchkeeper.core.record import LabelRecord, Prediction
from watchkeeper.core.signature import Column, Signature
from watchkeeper.core.version import Lineage, Manifest, digest, seal
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.events import highest_version
from watchkeeper.ledger.records import store_records
from watchkeeper.ledger.spools import SpoolState
from watchkeeper.pipeline import load
from watchkeeper.registry import DIGEST_TAG, FILES, GATE_TAG, RUN_TAG, Registry
from watchkeeper.rollout.actions import Action
from watchkeeper.rollout.controller import Controller
from watchkeeper.rollout.state import RolloutState, parse
from watchkeeper.rollout.version_cache import VersionCache

INPUTS = (Column("pressure", "FP64", "bar", 0, 100), Column("flow", "FP64", "l/s", 0, 100))
HEADS = (Head("probability", "probability.skops", "predict_proba"),)
ANSWER = AnswerPolicy((Label("failure", "probability"),), Risk("probability", 0.3, 0.7))
POLICY = RolloutPolicy(step_seconds=4, minimum_requests=15, patience=60, watch_seconds=4)


def build_version(
    folder: Path, model: str, seed: int = 0, judged: str = "", run: str = "run"
) -> None:
    """Write the folder of a small, complete version. ``judged`` is the score of the labels.

    ``run`` is the name of its training run. Two runs make two contents.
    """
    random = np.random.default_rng(seed)
    rows = pd.DataFrame(random.uniform(0, 100, (400, 2)), columns=["pressure", "flow"])
    fails = rows["pressure"] + random.normal(0, 15, len(rows)) > 60
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, fails)
    folder.mkdir(parents=True)
    skops.io.dump(pipeline, folder / "probability.skops")
    shift = Shift("recent", 400, Estimate(0.0, -0.1, 0.1))
    report = GateReport(True, "", 0.5, [], {}, {}, score_shift={"probability": shift})
    write_report(folder, report)
    heads = HEADS
    if judged:
        heads = (*HEADS, msgspec.structs.replace(HEADS[0], score=judged))
    manifest = Manifest(
        model=model,
        signature=Signature(INPUTS, outputs_of(heads, ANSWER)),
        heads=heads,
        answer=ANSWER,
        drift=DriftPolicy(),
        rollout=POLICY,
        lineage=Lineage(run, "0" * 64, 400, 400, "test", {}, "a test", 0.0),
        judged=judged,
    )
    seal(folder, manifest)


def train(registry: Registry, ledger: Ledger, folder: Path, model: str, run: str) -> int:
    """Register a version that passed its gate, as candidate, as a training run does."""
    client = registry.client
    experiment = client.get_experiment_by_name(model)
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(model)
    info = client.create_run(experiment_id).info
    client.log_artifacts(info.run_id, str(folder), FILES)
    client.set_tag(info.run_id, DIGEST_TAG, digest(folder))
    version = registry.create_version(
        model,
        f"{info.artifact_uri}/{FILES}",
        info.run_id,
        tags={RUN_TAG: run, DIGEST_TAG: digest(folder), GATE_TAG: "passed"},
        once=RUN_TAG,
        above=highest_version(ledger, model),
    ).version
    registry.set_alias(model, "candidate", version)
    return version


def register(registry: Registry, folder: Path, model: str) -> int:
    """Register a version that passed its gate, as candidate, by hand: MLflow counts."""
    client = registry.client
    if not client.search_registered_models(f"name='{model}'"):
        client.create_registered_model(model)
    run = client.create_run("0")
    client.log_artifacts(run.info.run_id, str(folder), "model")
    source = f"{run.info.artifact_uri}/model"
    found = client.create_model_version(model, source, run.info.run_id, tags={GATE_TAG: "passed"})
    registry.set_alias(model, "candidate", int(found.version))
    return int(found.version)


class Plant:
    """Traffic of 50 requests a second for each protocol, by the weights of the route."""

    def __init__(self, registry: Registry, ledger: Ledger, model: str, folder: Path) -> None:
        self.registry, self.ledger, self.model, self.folder = registry, ledger, model, folder
        self.platform = MemoryPlatform()
        self.now = 1_000_000.0
        self.slow: dict[int, float] = {}
        self.skewed: dict[int, float] = {}
        self.unanswered: dict[
            int, float
        ] = {}  # the share that the gateway repeats on another version
        self.labelled = False
        self.shipping = True
        self._random = np.random.default_rng(7)
        self.restart()

    def register(self, seed: int = 0) -> int:
        """Register a new version. Another seed fits it on other rows."""
        folder, run = self.build(seed)
        return train(self.registry, self.ledger, folder, self.model, run)

    def build(self, seed: int = 0) -> tuple[Path, str]:
        """Build a new version; return its folder and the name of its run."""
        run = uuid.uuid4().hex
        folder = self.folder / f"built-{run}"
        build_version(folder, self.model, seed, run=run)
        self.offline = load(folder)
        return folder, run

    def restart(self) -> None:
        """Replace the controller, as after a kill."""
        self.controller = Controller(
            self.model,
            self.platform,  # type: ignore[arg-type]
            self.registry,
            self.ledger,
            VersionCache(self.registry, self.model, self.folder / uuid.uuid4().hex),
            clock=lambda: self.now,
            monotonic=lambda: self.now,
        )

    def turn(self) -> Action | None:
        """Let half a second pass, then take a turn of the controller."""
        self.platform.pass_time()
        if self.shipping:
            self.serve(0.5)
        self.now += 0.5
        return self.controller.turn()

    def serve(self, seconds: float) -> None:
        """Answer the requests of the next seconds and store them in the ledger."""
        weights = self.platform.written.weights if self.platform.written else {}
        count = int(100 * seconds)
        versions = sorted(weights)
        shares = [weights[v] / 100 for v in versions]
        chosen = self._random.choice(versions, count, p=shares) if weights else ()
        inputs = {c.name: self._random.uniform(0, 100, count) for c in INPUTS}
        scores = self.offline.scores(inputs)["probability"]
        made = [
            self._prediction(
                int(version),
                protocol="http" if number % 2 else "grpc",
                time=self.now + number / 100,
                inputs={name: [float(values[number])] for name, values in inputs.items()},
                score=float(scores[number]),
            )
            for number, version in enumerate(chosen)
        ]
        made = [attempt for one in made for attempt in self._attempts(one, versions)]
        for version in {*versions, *self.platform.pods}:
            until = self.now + seconds
            spool = SpoolState(f"{self.model}-{version}", self.model, version, until)
            predictions = [p for p in made if p.version == version]
            store_records(self.ledger, predictions, self._labels(predictions), spool)

    def request(self, version: int) -> Prediction:
        """Make one answered request."""
        inputs = {c.name: [50.0] for c in INPUTS}
        return self._prediction(version, 0.5, protocol="http", time=self.now, inputs=inputs)

    def _prediction(self, version: int, score: float, **fields: Any) -> Prediction:
        latency = float(self._random.lognormal(np.log(0.002), 0.3))
        return Prediction(
            id=uuid.uuid4().hex,
            attempt=1,
            model=self.model,
            version=version,
            client="a test",
            latency=latency + self.slow.get(version, 0.0),
            status="OK",
            rows=1,
            outputs={"probability": [score + self.skewed.get(version, 0.0)]},
            **fields,
        )

    def _attempts(self, one: Prediction, versions: list[int]) -> list[Prediction]:
        """Repeat on another version what a version does not answer, as the gateway does."""
        share = self.unanswered.get(one.version)
        others = [v for v in versions if v != one.version]
        if share is None or not others or self._random.random() >= share:
            return [one]
        failed = msgspec.structs.replace(one, status="UNAVAILABLE", outputs={}, error="no")
        return [failed, msgspec.structs.replace(one, attempt=2, version=others[0])]

    def _labels(self, predictions: list[Prediction]) -> list[LabelRecord]:
        if not self.labelled:
            return []
        return [
            LabelRecord(p.id, 0, self.model, p.version, float(failed), self.now, "a test")
            for p in predictions
            for failed in [p.inputs["pressure"][0] > 60]
        ]


def state(plant: Plant) -> RolloutState:
    """Return the state of the rollout."""
    route = plant.platform.written
    return parse(route.state) if route else RolloutState()


def run(plant: Plant, until: Callable[[], bool], turns: int = 200) -> None:
    """Take turns until a condition holds."""
    for _ in range(turns):
        if until():
            return
        plant.turn()
    raise AssertionError(f"not within {turns} turns: {state(plant)}")
