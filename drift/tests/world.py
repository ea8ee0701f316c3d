"""A small real world: versions in folders, spools in files, and a place that starts runs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet

from watchkeeper.contracts.answer import AnswerPolicy, Label, Risk, outputs_of
from watchkeeper.contracts.policies import DriftPolicy, RolloutPolicy
from watchkeeper.contracts.record import LabelRecord, Prediction, Record, Round
from watchkeeper.contracts.signature import Column, Signature
from watchkeeper.contracts.spool import segment_path
from watchkeeper.contracts.version import BASELINE, REFERENCE, Head, Lineage, Manifest, seal
from watchkeeper.platforms import Run, RunState

MODEL = "pump-failure"
NUMBERS = ("heat", "speed", "torque", "wear")
COLUMNS = (
    Column("kind", "BYTES", categories=("L", "M", "H")),
    Column("heat", "FP64", unit="K", minimum=200.0, maximum=400.0),
    Column("speed", "FP64", unit="rpm", minimum=0.0, maximum=10000.0),
    Column("torque", "FP64", unit="Nm", minimum=0.0, maximum=300.0),
    Column("wear", "FP64", unit="min", minimum=0.0, maximum=1000.0),
)
Rows = dict[str, list[Any]]


def rows(count: int, seed: int, *, hotter: float = 0.0, stronger: float = 0.0) -> Rows:
    """Rows of forty machines in turn, each with a slow walk of its own in ``heat``."""
    rng = np.random.default_rng(seed)
    machines = 40
    turns = -(-count // machines)
    walk = np.empty((turns, machines))
    place = rng.normal(size=machines)
    for turn in range(turns):
        place = 0.9 * place + np.sqrt(1 - 0.81) * rng.normal(size=machines)
        walk[turn] = place
    torque = rng.normal(40 + stronger, 10, count).clip(0.1)
    heat = 300 + hotter + 2 * walk.ravel()[:count]
    speed = 900 + 2860 * 60 / (2 * np.pi) / (torque + 6) + rng.normal(0, 50, count)
    wear = rng.integers(0, 240, count).astype(float)
    score = 1 / (1 + np.exp(-((torque - 55) / 5 + (heat - 306) / 2)))
    return {
        "kind": rng.choice(["L", "M", "H"], count, p=[0.5, 0.3, 0.2]).tolist(),
        "heat": [round(float(v), 1) for v in heat],
        "speed": [round(float(v)) + 0.0 for v in speed],
        "torque": [round(float(v), 1) for v in torque],
        "wear": wear.tolist(),
        "score": [float(v) for v in score],
    }


def make_version(folder: Path, reference: Rows, policy: DriftPolicy | None = None) -> Manifest:
    """Write the folder of a version as training leaves it, without its pipelines."""
    folder.mkdir(parents=True)
    pa.parquet.write_table(pa.table(reference), folder / REFERENCE)
    baseline = {
        name: {"mean": float(np.mean(reference[name])), "std": float(np.std(reference[name]))}
        for name in (*NUMBERS, "score")
    }
    (folder / BASELINE).write_text(json.dumps(baseline))
    answer = AnswerPolicy((Label("failure", "score"),), Risk("score", 0.3, 0.7))
    manifest = Manifest(
        model=MODEL,
        signature=Signature(COLUMNS, outputs_of(("score",), answer)),
        heads=(Head("score", "score.skops", "predict_proba"),),
        answer=answer,
        drift=policy or DriftPolicy(),
        rollout=RolloutPolicy(),
        lineage=Lineage("pump-failure-v0-a1", "0", 1, 0, "0", {}, "first", 0.0),
    )
    return seal(folder, manifest)


def predictions(
    data: Rows, *, start: float = 1000.0, first: int = 0, version: int = 1, each: int = 1
) -> list[Prediction]:
    """One request for every ``each`` rows, a second apart."""
    count = len(data["kind"])
    return [
        Prediction(
            id=f"{version:04x}{first + n:028x}",
            attempt=1,
            model=MODEL,
            version=version,
            protocol="http",
            client="test",
            time=start + first + n,
            latency=0.001,
            status="OK",
            rows=min(each, count - at),
            inputs={c.name: data[c.name][at : at + each] for c in COLUMNS},
            outputs={"score": data["score"][at : at + each]},
        )
        for n, at in enumerate(range(0, count, each))
    ]


def labels_for(requests: list[Prediction], value: float = 0.0) -> list[LabelRecord]:
    return [LabelRecord(p.id, 0, p.model, p.version, value, p.time + 1, "test") for p in requests]


def append(spool: Path, lines: Sequence[Record | Round], segment: int = 1) -> None:
    spool.mkdir(parents=True, exist_ok=True)
    with segment_path(spool, segment).open("ab") as file:
        file.write(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))


class Runs:
    """The part of a platform that a sidecar needs: one lease holder, and runs by name."""

    def __init__(self) -> None:
        self.started: list[Run] = []
        self.states: dict[str, RunState] = {}
        self.holder = True

    def acquire(self, lease: str) -> bool:
        return self.holder and bool(lease)

    def create_run(self, run: Run) -> bool:
        if run.name in self.states:
            return False
        self.states[run.name] = "running"
        self.started.append(run)
        return True

    def runs(self, model: str) -> dict[str, RunState]:
        return {name: state for name, state in self.states.items() if name.startswith(model)}
