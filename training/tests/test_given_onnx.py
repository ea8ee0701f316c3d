"""ONNX models that a model's own function returns: what is served, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import bearings
import msgspec
import numpy as np
import onnx
import onnxruntime
import pumps
import pytest
from bearing import LIFE, STATE
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from watchkeeper.core.head import Head
from watchkeeper.core.signature import Column
from watchkeeper.pipeline import load
from watchkeeper.pipeline.frameworks import UnsupportedEstimatorError
from watchkeeper.pipeline.frameworks.onnx import OnnxEstimator
from watchkeeper.pipeline.frameworks.onnx_graph import as_form
from watchkeeper.training.check import check
from watchkeeper.training.declaration import Gate, Model
from watchkeeper.training.models import find
from watchkeeper.training.training_data import TrainingData

NO_ZIPMAP = {"zipmap": False}
FLOATS = [("features", FloatTensorType([None, 3]))]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("bearings") / "source.db"
    return pumps.database(path, bearings.readings(1500), "bearings")


def with_train(train: Callable[[TrainingData], Any], model: Model) -> Model:
    head = msgspec.structs.replace(model.heads[0], features=None, estimator=None, train=train)
    return msgspec.structs.replace(
        model, heads=(head,), gate=Gate(margin=0.1), outliers=None, balance=None
    )


def one_tensor(data: TrainingData) -> Any:
    """All features in one tensor of float32, as most exports have it."""
    made = make_pipeline(StandardScaler(), LogisticRegression())
    made.fit(data.columns.to_numpy(np.float64), data.target)
    return to_onnx(made, initial_types=FLOATS, options={id(made): NO_ZIPMAP})


def a_file(data: TrainingData) -> Any:
    return one_tensor(data).SerializeToString()


@pytest.mark.parametrize("train", [one_tensor, a_file])
def test_a_model_with_one_tensor_is_served_as_it_answers(
    train: Callable[[TrainingData], Any], source: str, tmp_path: Path
) -> None:
    given: list[Any] = []

    def kept(data: TrainingData) -> Any:
        given.append(train(data))
        return given[-1]

    check(with_train(kept, STATE), source, tmp_path / "version")
    model = load(tmp_path / "version")
    (head,) = model.manifest.heads
    assert (head.framework, head.onnx_difference) == ("onnx", 0.0)
    assert not list((tmp_path / "version").rglob("*.pkl"))
    rows = bearings.readings(50, 9)[bearings.NAMES]
    answered = model.answer({name: rows[name].to_numpy() for name in rows})
    content = given[0] if isinstance(given[0], bytes) else given[0].SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (expected,) = session.run(["probabilities"], {"features": rows.to_numpy(np.float32)})
    for place, name in enumerate(head.classes):
        assert answered[f"state_{name}"] == pytest.approx(expected[:, place], abs=1e-7)


def test_a_regression_is_served(source: str, tmp_path: Path) -> None:
    def train(data: TrainingData) -> Any:
        made = LinearRegression().fit(data.columns.to_numpy(np.float64), data.target)
        return to_onnx(made, initial_types=FLOATS)

    found = check(with_train(train, LIFE), source, tmp_path / "version")
    assert (found.report.metrics["history"]["r2"].value or 0.0) > 0.5


def test_inputs_by_name_may_be_texts_and_numbers(history: str, tmp_path: Path) -> None:
    pump = find("pump-failure")

    def train(data: TrainingData) -> Any:
        used = ["wear", "load"]
        steps = [("grade", OneHotEncoder(), ["grade"]), ("numbers", "passthrough", used)]
        made = make_pipeline(ColumnTransformer(steps), RandomForestClassifier(10, max_depth=6))
        made.fit(data.columns, data.target)
        inputs = [("grade", StringTensorType([None, 1]))]
        inputs += [(name, DoubleTensorType([None, 1])) for name in used]
        return to_onnx(made, initial_types=inputs, options={id(made): NO_ZIPMAP})

    found = check(with_train(train, pump), history, tmp_path / "version", pump.parameters())
    assert (found.report.metrics["history"]["roc_auc"].value or 0.0) > 0.8


HEAD = Head("risk", "risk.skops", "predict_proba", label="failed")
COLUMNS = (Column("flow", "FP64"), Column("grade", "BYTES", categories=("a", "b")))
NUMBERS = (Column("flow", "FP64"), Column("hours", "INT64"))


def graph(inputs: dict[str, Any], outputs: dict[str, Any]) -> onnx.ModelProto:
    """Return a model whose outputs are its first input."""
    kinds = {"float": TensorProto.FLOAT, "double": TensorProto.DOUBLE, "int64": TensorProto.INT64}
    given = [
        helper.make_tensor_value_info(name, kinds[kind], shape)
        for name, (kind, shape) in inputs.items()
    ]
    made = [
        helper.make_tensor_value_info(name, kinds[kind], shape)
        for name, (kind, shape) in outputs.items()
    ]
    first = next(iter(inputs))
    nodes = [
        helper.make_node("Cast", [first], [name], to=kinds[kind])
        for name, (kind, _) in outputs.items()
    ]
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(
        helper.make_graph(nodes, "g", given, made), opset_imports=opsets, ir_version=10
    )


REFUSED: list[tuple[dict[str, Any], dict[str, Any], tuple[Column, ...], str]] = [
    (
        {"x": ("float", [None, 3])},
        {"p": ("float", [None, 2])},
        NUMBERS,
        r"the inputs 'x': float \[any, 3\]; expected is .* of shape \[rows, 2\] .*: flow, hours",
    ),
    (
        {"flow": ("float", [None, 1]), "age": ("float", [None, 1])},
        {"p": ("float", [None, 2])},
        NUMBERS,
        "'age': float .*; expected is one input for each request column, with its name",
    ),
    (
        {"x": ("float", [None, 2])},
        {"p": ("float", [None, 2])},
        COLUMNS,
        "needs float for the column 'grade', which is BYTES",
    ),
    (
        {"flow": ("int64", [None, 1])},
        {"p": ("float", [None, 2])},
        NUMBERS,
        "needs int64 for the column 'flow', which is FP64",
    ),
    (
        {"flow": ("float", [1, 1])},
        {"p": ("float", [1, 1])},
        NUMBERS,
        "'flow' of its ONNX model has always 1 rows",
    ),
    (
        {"flow": ("float", [None, 1])},
        {"label": ("int64", [None, 1])},
        NUMBERS,
        r"the outputs 'label': int64 \[any, 1\]; expected is one tensor of float or double",
    ),
    (
        {"flow": ("float", [None, 1])},
        {"a": ("float", [None, 1]), "b": ("float", [None, 1])},
        NUMBERS,
        "outputs 'a': .*'b': .*; name one of them 'risk'",
    ),
]


@pytest.mark.parametrize(("inputs", "outputs", "columns", "message"), REFUSED)
def test_what_does_not_fit_is_refused_with_what_is_expected(
    inputs: dict[str, Any], outputs: dict[str, Any], columns: tuple[Column, ...], message: str
) -> None:
    with pytest.raises(UnsupportedEstimatorError, match=message):
        as_form(graph(inputs, outputs), HEAD, columns)


def test_zipmap_is_refused_with_the_option_to_leave_it_out() -> None:
    made = LogisticRegression().fit(np.eye(2), [0, 1])
    given = to_onnx(made, initial_types=[("x", FloatTensorType([None, 2]))])
    with pytest.raises(UnsupportedEstimatorError, match=r"without ZipMap .*'zipmap': False"):
        as_form(given, HEAD, NUMBERS)


def test_what_is_no_onnx_model_is_refused() -> None:
    with pytest.raises(UnsupportedEstimatorError, match="it is no valid ONNX model"):
        as_form(b"a text", HEAD, NUMBERS)


def test_names_of_columns_may_be_names_inside_of_the_model() -> None:
    given = graph({"flow": ("float", [None, 1])}, {"risk": ("float", [None, 1])})
    given.graph.node[0].output[0] = "hours"
    given.graph.node.append(helper.make_node("Identity", ["hours"], ["risk"]))
    form = as_form(given, HEAD, NUMBERS)
    estimator = OnnxEstimator(form, "a test")
    frame = bearings.readings(5)[["hours"]].assign(flow=np.arange(5.0))
    assert estimator.predict(frame).tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
