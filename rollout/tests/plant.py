"""A plant of pumps: versions in a real registry, and requests that end in a real ledger."""

import uuid
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

from watchkeeper.contracts.answer import AnswerPolicy, Label, Risk, outputs_of
from watchkeeper.contracts.policies import DriftPolicy, RolloutPolicy
from watchkeeper.contracts.record import LabelRecord, Prediction
from watchkeeper.contracts.signature import Column, Signature
from watchkeeper.contracts.version import GATE_REPORT, Head, Lineage, Manifest, seal
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.store import SpoolState, ship
from watchkeeper.pipeline import load
from watchkeeper.registry import GATE_TAG, Registry
from watchkeeper.rollout.controller import Controller
from watchkeeper.rollout.offline import Versions
from watchkeeper.rollout.steps import Step

INPUTS = (Column("pressure", "FP64", "bar", 0, 100), Column("flow", "FP64", "l/s", 0, 100))
ANSWER = AnswerPolicy((Label("failure", "probability"),), Risk("probability", 0.3, 0.7))
POLICY = RolloutPolicy(step_seconds=4, minimum_requests=15, patience=60, watch_seconds=4)


def build_version(folder: Path, model: str, seed: int = 0) -> None:
    """Write the folder of a small but whole version."""
    random = np.random.default_rng(seed)
    rows = pd.DataFrame(random.uniform(0, 100, (400, 2)), columns=["pressure", "flow"])
    fails = rows["pressure"] + random.normal(0, 15, len(rows)) > 60
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, fails)
    folder.mkdir()
    skops.io.dump(pipeline, folder / "probability.skops")
    shift = {"on": "recent", "rows": 400, "mean": {"value": 0.0, "low": -0.1, "high": 0.1}}
    (folder / GATE_REPORT).write_bytes(msgspec.json.encode({"score_shift": {"probability": shift}}))
    manifest = Manifest(
        model=model,
        signature=Signature(INPUTS, outputs_of(("probability",), ANSWER)),
        heads=(Head("probability", "probability.skops", "predict_proba"),),
        answer=ANSWER,
        drift=DriftPolicy(),
        rollout=POLICY,
        lineage=Lineage("run", "0" * 64, 400, 400, "test", {}, "a test", 0.0),
    )
    seal(folder, manifest)


def register(registry: Registry, folder: Path, model: str) -> int:
    """Register a version, with its gate passed, as candidate."""
    client = registry.client
    if not registry.versions(model):
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
        self.unanswered: dict[int, float] = {}  # the share that the gateway repeats on another one
        self.labelled = False
        self.shipping = True
        self._random = np.random.default_rng(7)
        self.restart()

    def register(self, seed: int = 0) -> int:
        """Register a new version, fitted on other rows for another seed."""
        folder = self.folder / f"built-{uuid.uuid4().hex}"
        build_version(folder, self.model, seed)
        self.offline = load(folder)
        return register(self.registry, folder, self.model)

    def restart(self) -> None:
        """Put a new controller in the place of the one that was killed."""
        self.controller = Controller(
            self.model,
            self.platform,  # type: ignore[arg-type]
            self.registry,
            self.ledger,
            Versions(self.registry, self.model, self.folder / uuid.uuid4().hex),
            clock=lambda: self.now,
            monotonic=lambda: self.now,
        )

    def turn(self) -> Step | None:
        """Let half a second pass, and the controller take a turn."""
        self.platform.pass_time()
        if self.shipping:
            self.serve(0.5)
        self.now += 0.5
        return self.controller.turn()

    def serve(self, seconds: float) -> None:
        """Answer and ship the requests of the next seconds."""
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
            ship(self.ledger, predictions, self._labels(predictions), spool)

    def request(self, version: int) -> Prediction:
        """Make one answered request."""
        inputs = {c.name: [50.0] for c in INPUTS}
        return self._prediction(version, 0.5, protocol="http", time=self.now, inputs=inputs)

    def _prediction(self, version: int, score: float, **said: Any) -> Prediction:
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
            **said,
        )

    def _attempts(self, one: Prediction, versions: list[int]) -> list[Prediction]:
        """Let the gateway repeat elsewhere what a version does not answer."""
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
