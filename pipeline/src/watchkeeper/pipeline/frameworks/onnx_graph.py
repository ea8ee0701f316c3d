"""The graph of a given ONNX model, with one input for each request column and one output.

What a server runs has an input of shape [rows, 1] for each column that it needs, with the name and
the datatype of the column. Its output has the name of the head, the datatype double, and the shape
[rows] or, for a head with several scores, [rows, scores].
"""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, compose, helper, numpy_helper

from watchkeeper.core.head import Head
from watchkeeper.core.signature import DTYPES, Column, Datatype
from watchkeeper.core.tasks import task_of
from watchkeeper.pipeline.frameworks import UnsupportedEstimatorError

PREFIX: Final = "given/"  # before the names of the model, which may be those of columns
TENSORS: Final[dict[Datatype, int]] = {
    datatype: helper.np_dtype_to_tensor_dtype(dtype) for datatype, dtype in DTYPES.items()
}
FLOATS: Final = (TensorProto.FLOAT, TensorProto.DOUBLE)
INTEGERS: Final = (TensorProto.INT64, TensorProto.INT32)
PROBABILITIES: Final = ("probabilities", "output_probability")  # as converters name them


def as_form(given: ModelProto | bytes, head: Head, columns: tuple[Column, ...]) -> bytes:
    """Return the file of a model that computes the values of a head from request columns.

    Args:
        given: the model, or the content of its file.
        head: the head.
        columns: the request columns.

    Raises:
        UnsupportedEstimatorError: its inputs cannot be the columns, or no output the scores; the
            message says what is expected.
    """
    try:
        given = ModelProto.FromString(given) if isinstance(given, bytes) else given
        onnx.checker.check_model(given)
    except (DecodeError, onnx.checker.ValidationError) as error:
        raise UnsupportedEstimatorError(f"it is no valid ONNX model: {error}") from error
    graph = _Graph(compose.add_prefix(given, PREFIX))
    known = {each.name for each in given.graph.initializer}
    inputs = [each for each in given.graph.input if each.name not in known]
    used = graph.feed(inputs, columns)
    graph.give(_output(given, head), head)
    model = graph.model
    del model.graph.input[:]
    model.graph.input.extend(
        helper.make_tensor_value_info(c.name, TENSORS[c.datatype], [None, 1]) for c in used
    )
    scores = len(task_of(head).scores)
    shape = [None] if scores == 1 else [None, scores]
    del model.graph.output[:]
    score = helper.make_tensor_value_info(head.score, TensorProto.DOUBLE, shape)
    model.graph.output.append(score)
    if not any(each.domain in ("", "ai.onnx") for each in model.opset_import):
        model.opset_import.append(helper.make_opsetid("", 18))
    return bytes(model.SerializeToString())


class _Graph:
    """A model that gets nodes before its inputs and behind its output."""

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self._nodes = 0

    def feed(self, inputs: list[ValueInfoProto], columns: tuple[Column, ...]) -> list[Column]:
        """Connect the inputs with columns, and return the columns that are used."""
        by_name = {column.name: column for column in columns}
        before: list[NodeProto] = []
        if all(each.name in by_name and _width(each) in (1, None) for each in inputs):
            used = [by_name[each.name] for each in inputs]
            for each, column in zip(inputs, used, strict=True):
                wide = self._cast(before, column, each)
                flat = [-1] if len(_shape(each)) == 1 else [-1, 1]
                before.append(
                    helper.make_node("Reshape", [wide, self._constant(flat)], [PREFIX + each.name])
                )
        elif len(inputs) == 1 and _width(inputs[0]) in (len(columns), None):
            used = list(columns)
            parts = [self._cast(before, column, inputs[0]) for column in columns]
            before.append(helper.make_node("Concat", parts, [PREFIX + inputs[0].name], axis=1))
        else:
            raise UnsupportedEstimatorError(
                f"its ONNX model has the inputs {_listed(inputs)}; expected is one input for each "
                f"request column, with its name and of shape [rows, 1], or a single input of shape "
                f"[rows, {len(columns)}] with all of them in this order: {', '.join(by_name)}"
            )
        for each in inputs:
            _check_rows(each)
        nodes = [*before, *self.model.graph.node]
        del self.model.graph.node[:]
        self.model.graph.node.extend(nodes)
        return used

    def give(self, output: ValueInfoProto, head: Head) -> None:
        """Make the values of a head from an output."""
        name, scores = PREFIX + output.name, len(task_of(head).scores)
        after: list[NodeProto] = []
        if scores > 1:
            shaped = self._node(after, "Reshape", name, self._constant([-1, scores]))
        else:
            if len(_shape(output)) > 1:  # the last column is the one of the positive class
                name = self._node(after, "Gather", name, self._constant(-1), axis=1)
            shaped = self._node(after, "Reshape", name, self._constant([-1]))
        cast = helper.make_node("Cast", [shaped], [head.score], to=TensorProto.DOUBLE)
        self.model.graph.node.extend([*after, cast])

    def _cast(self, nodes: list[NodeProto], column: Column, needed: ValueInfoProto) -> str:
        """Return the name of a column in the datatype that an input needs."""
        kind, has = needed.type.tensor_type.elem_type, TENSORS[column.datatype]
        if kind == has:
            return column.name
        fits = (*FLOATS, *INTEGERS) if has in INTEGERS else FLOATS
        if kind not in fits or has == TensorProto.STRING:
            raise UnsupportedEstimatorError(
                f"its ONNX model needs {_type(needed)} for the column {column.name!r}, which is "
                f"{column.datatype}; declare another datatype, or export it with another input"
            )
        return self._node(nodes, "Cast", column.name, to=kind)

    def _node(self, nodes: list[NodeProto], kind: str, *inputs: str, **attributes: Any) -> str:
        self._nodes += 1
        name = f"{kind} {self._nodes} of watchkeeper"
        nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def _constant(self, value: Any) -> str:
        self._nodes += 1
        name = f"constant {self._nodes} of watchkeeper"
        content = np.array(value, dtype=np.int64)
        self.model.graph.initializer.append(numpy_helper.from_array(content, name))
        return name


def _output(given: ModelProto, head: Head) -> ValueInfoProto:
    """Return the output with the values of a head."""
    scores = len(task_of(head).scores)
    outputs: list[ValueInfoProto] = list(given.graph.output)
    fitting = [each for each in outputs if _fits(each, scores)]
    for name in (head.score, *PROBABILITIES):
        fitting = [each for each in fitting if each.name == name] or fitting
    if len(fitting) == 1:
        return fitting[0]
    wanted = (
        f"[rows, {scores}]" if scores > 1 else "[rows], [rows, 1] or, for two classes, [rows, 2]"
    )
    hint = ""
    if any(each.type.HasField("sequence_type") for each in outputs):
        hint = "; export it without ZipMap (skl2onnx: options={'zipmap': False})"
    elif len(fitting) > 1:
        hint = f"; name one of them {head.score!r}"
    raise UnsupportedEstimatorError(
        f"its ONNX model has the outputs {_listed(outputs)}; expected is one tensor of float or "
        f"double with the scores, of shape {wanted}{hint}"
    )


def _fits(output: ValueInfoProto, scores: int) -> bool:
    if output.type.tensor_type.elem_type not in FLOATS:
        return False
    shape = _shape(output)
    if scores > 1:
        return len(shape) == 2 and shape[1] in (scores, None)
    return len(shape) == 1 or (len(shape) == 2 and shape[1] in (1, 2, None))


def _check_rows(given: ValueInfoProto) -> None:
    rows = _shape(given)[0]
    if rows is not None:
        raise UnsupportedEstimatorError(
            f"the input {given.name!r} of its ONNX model has always {rows} rows; export it with a "
            "free first dimension"
        )


def _width(given: ValueInfoProto) -> int | None:
    """Return how many values a row has, None if any number, 0 if it is no tensor of rows."""
    shape = _shape(given)
    return 1 if len(shape) == 1 else shape[1] if len(shape) == 2 else 0


def _shape(given: ValueInfoProto) -> list[int | None]:
    """Return the dimensions, None where they are free."""
    dimensions = given.type.tensor_type.shape.dim
    return [each.dim_value if each.HasField("dim_value") else None for each in dimensions]


def _type(given: ValueInfoProto) -> str:
    if not given.type.HasField("tensor_type"):
        return "a sequence or map"
    return str(TensorProto.DataType.Name(given.type.tensor_type.elem_type)).lower()


def _listed(given: list[ValueInfoProto]) -> str:
    def shown(each: ValueInfoProto) -> Iterator[str]:
        yield f"{each.name!r}: {_type(each)}"
        if each.type.HasField("tensor_type"):
            words = ("any" if n is None else str(n) for n in _shape(each))
            yield f"[{', '.join(words)}]"

    return "; ".join(" ".join(shown(each)) for each in given) or "none"
