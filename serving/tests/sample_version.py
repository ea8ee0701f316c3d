"""The version that the tests serve: a small forest, trained here."""

import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pandas as pd
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import DoubleTensorType, StringTensorType
from skl2onnx.sklapi import CastTransformer
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from watchkeeper.core.answer import AnswerPolicy, Label, Risk, outputs_of
from watchkeeper.core.head import Head
from watchkeeper.core.policies import DriftPolicy, RolloutPolicy
from watchkeeper.core.signature import Column, Signature
from watchkeeper.core.timestamps import text
from watchkeeper.core.version import EXAMPLE, Example, Lineage, Manifest, seal
from watchkeeper.pipeline import load
from watchkeeper.pipeline.files import framework_name, save_pipeline

MODEL = "pump-failure"
VERSION = 7
SCORE = "failure_probability"
TRUTH = "failed"
COLUMNS = (
    Column("grade", "BYTES", categories=("L", "M", "H")),
    Column("inlet_pressure", "FP64", "kPa", 250, 350),
    Column("flow", "FP64", "l/min", 0, 5000),
    Column("vibration", "FP64", "mm/s", 0, 200),
    Column("running_hours", "FP64", "h", 0),
    Column("strokes", "INT64", "", 0, 10**9),
)
POLICY = AnswerPolicy((Label("failure", SCORE, 0.5),), Risk(SCORE, 0.2, 0.6))


def rows(number: int, seed: int = 0, columns: tuple[Column, ...] = COLUMNS) -> dict[str, list]:
    """Create valid columns."""
    if columns is not COLUMNS:
        return {c.name: _values(c, number, np.random.default_rng(seed)) for c in columns}
    random = np.random.default_rng(seed)
    return {
        "grade": random.choice(["L", "M", "H"], number).tolist(),
        "inlet_pressure": random.normal(300, 5, number).tolist(),
        "flow": random.normal(1500, 150, number).tolist(),
        "vibration": np.abs(random.normal(40, 10, number)).tolist(),
        "running_hours": random.uniform(0, 240, number).tolist(),
        "strokes": random.integers(0, 10**6, number).tolist(),
    }


def _values(column: Column, number: int, random: np.random.Generator) -> list:
    values = _present(column, number, random)
    missing = column.nullable & (random.random(number) < 0.2)
    return [None if gone else value for gone, value in zip(missing, values, strict=True)]


def _present(column: Column, number: int, random: np.random.Generator) -> list:
    if column.datatype == "BYTES":
        return [column.categories[i] for i in random.integers(len(column.categories), size=number)]
    if column.datatype == "BOOL":
        return random.integers(0, 1, number, endpoint=True).astype(bool).tolist()
    if column.datatype == "TIMESTAMP":
        return [text(float(value)) for value in random.integers(0, 2**31, number)]
    low = -1000 if column.minimum is None else column.minimum
    high = low + 2000 if column.maximum is None else column.maximum
    if column.is_integer:
        low, high = int(np.ceil(low)), int(np.floor(high))
        return random.integers(low, high, number, endpoint=True).tolist()
    return random.uniform(low, high, number).tolist()


def create_version(
    folder: Path,
    *,
    columns: tuple[Column, ...] = COLUMNS,
    model: str = MODEL,
    trees: int = 20,
    depth: int = 6,
    with_onnx: bool = True,
    unknown: str = "error",
    estimator: Any = None,
) -> Path:
    """Train, convert and seal a version. For other columns, the target is random.

    An ``estimator`` replaces the forest. It has no ONNX form, and neither has a forest with
    nullable columns, because skl2onnx is wrong for missing values."""
    folder.mkdir(parents=True)
    made = rows(2000, columns=columns)
    frame = pd.DataFrame({c.name: c.array(made[c.name]) for c in columns})
    target = np.random.default_rng(1).integers(2, size=len(frame))
    if columns is COLUMNS:
        target = (
            (frame["vibration"] > 48) | (frame["running_hours"] > 200) | (frame["grade"] == "H")
        )
    texts = [c.name for c in columns if c.datatype == "BYTES"]
    numbers = [c.name for c in columns if c.datatype != "BYTES"]
    known = [[*c.categories, *([""] * c.nullable)] for c in columns if c.name in texts]
    unknown = "ignore" if any(c.unseen == "accept" for c in columns) else unknown
    encoder = OneHotEncoder(categories=known, handle_unknown=unknown)
    encoders = [("texts", encoder, texts), ("numbers", "passthrough", numbers)]
    pipeline = Pipeline(
        [
            # Not sparse: trees of scikit-learn accept no missing values in a sparse matrix.
            (
                "encode",
                ColumnTransformer([each for each in encoders if each[2]], sparse_threshold=0),
            ),
            ("forest", estimator or RandomForestClassifier(trees, max_depth=depth, random_state=0)),
        ]
    ).fit(frame, np.asarray(target, dtype=int))
    with_onnx = with_onnx and estimator is None and not any(c.nullable for c in columns)
    head = Head(
        SCORE,
        f"{SCORE}.skops",
        "predict_proba",
        f"{SCORE}.onnx" if with_onnx else None,
        1e-7 if with_onnx else None,
        label=TRUTH,
        framework=framework_name(pipeline),
    )
    save_pipeline(pipeline, folder, head)
    if with_onnx:
        onnx.save(as_onnx(pipeline, columns), folder / f"{SCORE}.onnx")
    manifest = Manifest(
        model=model,
        signature=Signature(columns, outputs_of((head,), POLICY)),
        heads=(head,),
        answer=POLICY,
        drift=DriftPolicy(),
        rollout=RolloutPolicy(),
        lineage=Lineage("a-run", "0" * 64, 2000, 0, "", {}, "a test", time.time()),
    )
    seal(folder, manifest)
    inputs = rows(5, seed=1, columns=columns)
    answered = load(folder).answer({c.name: c.array(inputs[c.name]) for c in columns})
    example = Example(inputs, {name: values.tolist() for name, values in answered.items()})
    (folder / EXAMPLE).write_bytes(msgspec.json.encode(example))
    seal(folder, manifest)
    return folder


def as_onnx(pipeline: Pipeline, columns: tuple[Column, ...]) -> onnx.ModelProto:
    """One input per column, of shape [rows, 1]; one output per score, of shape [rows]."""
    (_, encode), (_, forest) = pipeline.steps
    model = to_onnx(
        # Trees of scikit-learn compare in FP32.
        Pipeline([("encode", encode), ("cast", CastTransformer(dtype=np.float32)), ("f", forest)]),
        initial_types=[
            (
                c.name,
                StringTensorType([None, 1])
                if c.datatype == "BYTES"
                else DoubleTensorType([None, 1]),
            )
            for c in columns
        ],
        options={id(forest): {"zipmap": False}},
    )
    graph = model.graph
    # skl2onnx changes the names of inputs to valid identifiers; requests have the real names.
    real = {given.name: c.name for given, c in zip(graph.input, columns, strict=True)}
    for given in graph.input:
        given.name = real[given.name]
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = real.get(name, name)
    probabilities = graph.output[1].name
    graph.initializer.append(helper.make_tensor("positive_class", TensorProto.INT64, [], [1]))
    graph.node.append(
        helper.make_node("Gather", [probabilities, "positive_class"], [SCORE], axis=1)
    )
    kind = graph.output[1].type.tensor_type.elem_type
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(SCORE, kind, [None]))
    onnx.checker.check_model(model)
    return model
