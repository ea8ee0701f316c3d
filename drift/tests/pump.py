"""A model of a pump for tests: rows of its columns, a version, requests, labels and a spool."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet

from watchkeeper.core.answer import AnswerPolicy, Label, Risk, outputs_of
from watchkeeper.core.drift_report import DriftReport, DriftVerdict, FeatureReport, ReportWindow
from watchkeeper.core.gate_report import GateReport, HeldOutLoss, write_report
from watchkeeper.core.head import Head
from watchkeeper.core.policies import DriftPolicy, RolloutPolicy
from watchkeeper.core.record import Batch, LabelRecord, Prediction, Record
from watchkeeper.core.signature import Column, Signature
from watchkeeper.core.spool import segment_path
from watchkeeper.core.version import BASELINE, REFERENCE, Lineage, Manifest, seal

MODEL = "pump-failure"
NUMBERS = ("inlet_pressure", "flow", "vibration", "hours")
COLUMNS = (
    Column("grade", "BYTES", categories=("L", "M", "H")),
    Column("inlet_pressure", "FP64", unit="kPa", minimum=200.0, maximum=400.0),
    Column("flow", "FP64", unit="l/h", minimum=0.0, maximum=10000.0),
    Column("vibration", "FP64", unit="um", minimum=0.0, maximum=300.0),
    Column("hours", "FP64", unit="h", minimum=0.0, maximum=1000.0),
)
Rows = dict[str, list[Any]]


def rows(count: int, seed: int, *, vibration_shift: float = 0.0) -> Rows:
    """Return rows of forty pumps in turn, with scores.

    ``inlet_pressure`` of each pump is a slow random walk. A shift of ``vibration`` changes ``flow``
    and the score, too.
    """
    rng = np.random.default_rng(seed)
    pumps = 40
    turns = -(-count // pumps)
    walk = np.empty((turns, pumps))
    place = rng.normal(size=pumps)
    for turn in range(turns):
        place = 0.9 * place + np.sqrt(1 - 0.81) * rng.normal(size=pumps)
        walk[turn] = place
    vibration = rng.normal(40 + vibration_shift, 10, count).clip(0.1)
    pressure = 300 + 2 * walk.ravel()[:count]
    flow = 900 + 2860 * 60 / (2 * np.pi) / (vibration + 6) + rng.normal(0, 50, count)
    hours = rng.integers(0, 240, count).astype(float)
    score = 1 / (1 + np.exp(-((vibration - 55) / 5 + (pressure - 306) / 2)))
    return {
        "grade": rng.choice(["L", "M", "H"], count, p=[0.5, 0.3, 0.2]).tolist(),
        "inlet_pressure": [round(float(v), 1) for v in pressure],
        "flow": [round(float(v)) + 0.0 for v in flow],
        "vibration": [round(float(v), 1) for v in vibration],
        "hours": hours.tolist(),
        "score": [float(v) for v in score],
    }


HEADS = (Head("score", "score.skops", "predict_proba"),)
LABELLED_HEADS = (msgspec.structs.replace(HEADS[0], label="failure"),)


def make_version(
    folder: Path,
    reference: Rows,
    policy: DriftPolicy | None = None,
    losses: dict[str, HeldOutLoss] | None = None,
) -> Manifest:
    """Write the folder of a version as training does, but without its pipelines.

    With ``losses``, which the gate has measured, its head has the truth "failure".
    """
    folder.mkdir(parents=True)
    heads = HEADS if losses is None else LABELLED_HEADS
    if losses is not None:
        write_report(folder, GateReport(True, "", 0.5, [], {}, {}, losses=losses))
    pa.parquet.write_table(pa.table(reference), folder / REFERENCE)
    baseline = {
        name: {"mean": float(np.mean(reference[name])), "std": float(np.std(reference[name]))}
        for name in (*NUMBERS, "score")
    }
    (folder / BASELINE).write_text(json.dumps(baseline))
    answer = AnswerPolicy((Label("failure", "score"),), Risk("score", 0.3, 0.7))
    manifest = Manifest(
        model=MODEL,
        signature=Signature(COLUMNS, outputs_of(heads, answer)),
        heads=heads,
        answer=answer,
        drift=policy or DriftPolicy(),
        rollout=RolloutPolicy(),
        lineage=Lineage("pump-failure-v0-a1", "0", 1, 0, "0", {}, "first", 0.0),
    )
    return seal(folder, manifest)


def predictions(
    data: Rows, *, start: float = 1000.0, first: int = 0, version: int = 1, each: int = 1
) -> list[Prediction]:
    """Return one request for every ``each`` rows, a second apart.

    ``first`` is the number of the first request: it makes its id and adds to its time.
    """
    count = len(data["grade"])
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
    """Return a label for the first row of each request, a second later."""
    return [LabelRecord(p.id, 0, p.model, p.version, value, p.time + 1, "test") for p in requests]


def drift_report(
    end: float, verdict: DriftVerdict, *, start: float | None = None, confirmations: int = 1
) -> DriftReport:
    """Return the report of a window of ten seconds, about vibration only."""
    vibration = FeatureReport(
        name="vibration",
        kind="numeric",
        test="ks",
        statistic=0.5,
        p_value=0.0,
        effect_size=0.5,
        z=1.0,
        baseline={"mean": 40.0, "std": 10.0},
        window={"mean": 50.0, "std": 10.0},
        drifted=verdict == "drifted",
        confirmations=confirmations if verdict == "drifted" else 0,
        confirmed_until=end,
    )
    window = ReportWindow(end - 10 if start is None else start, end, 10)
    return DriftReport(verdict=verdict, reason="", window=window, features=(vibration,))


def append(spool: Path, lines: Sequence[Record | Batch], segment: int = 1) -> None:
    """Append lines to a segment of a spool, as a server does."""
    spool.mkdir(parents=True, exist_ok=True)
    with segment_path(spool, segment).open("ab") as file:
        file.write(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
