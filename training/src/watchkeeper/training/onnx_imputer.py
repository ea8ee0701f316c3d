"""SimpleImputer in ONNX: skl2onnx makes a node of it that ONNX Runtime lacks for doubles.

Missing numbers are NaN in pipelines, so an imputer of another ``missing_values`` has no form.
"""

from typing import Any, Final

import numpy as np
from onnx import TensorProto
from skl2onnx import update_registered_converter
from skl2onnx.common.data_types import DoubleTensorType
from sklearn.impute import SimpleImputer

_OPSET: Final = 13


def register() -> None:
    """Replace the converter of skl2onnx."""
    update_registered_converter(SimpleImputer, "SimpleImputerInDouble", _shape, _convert)


def _shape(operator: Any) -> None:
    imputer: SimpleImputer = operator.raw_operator
    if not isinstance(imputer.missing_values, float) or not np.isnan(imputer.missing_values):
        raise NotImplementedError("SimpleImputer: only missing_values=nan is converted")
    width = len(_kept(imputer)) + len(_indicated(imputer))
    operator.outputs[0].type = DoubleTensorType([None, width])


def _convert(scope: Any, operator: Any, container: Any) -> None:
    imputer: SimpleImputer = operator.raw_operator

    def node(kind: str, *inputs: str, **attributes: Any) -> str:
        output = scope.get_unique_variable_name(f"imputer_{kind.lower()}")
        name = scope.get_unique_operator_name(f"imputer_{kind.lower()}")
        container.add_node(kind, [*inputs], [output], name=name, op_version=_OPSET, **attributes)
        return str(output)

    def constant(values: Any, kind: int) -> str:
        name = scope.get_unique_variable_name("imputer_constant")
        container.add_initializer(name, kind, [len(values)], list(values))
        return str(name)

    def chosen(values: str, places: Any) -> str:
        return node("Gather", values, constant(places, TensorProto.INT64), axis=1)

    parts = [node("Cast", each.full_name, to=TensorProto.DOUBLE) for each in operator.inputs]
    values = parts[0] if len(parts) == 1 else node("Concat", *parts, axis=1)
    missing, kept = node("IsNaN", values), _kept(imputer)
    replaced = node(
        "Where",
        chosen(missing, kept),
        constant(imputer.statistics_[kept].astype(np.float64), TensorProto.DOUBLE),
        chosen(values, kept),
    )
    outputs = [replaced]
    if len(indicated := _indicated(imputer)):
        outputs.append(node("Cast", chosen(missing, indicated), to=TensorProto.DOUBLE))
    # A Concat of one tensor gives the output its name.
    container.add_node(
        "Concat",
        outputs,
        [operator.outputs[0].full_name],
        name=scope.get_unique_operator_name("imputer_output"),
        axis=1,
        op_version=_OPSET,
    )


def _kept(imputer: SimpleImputer) -> Any:
    """Return the places of the features that the imputer keeps: others had no value in the fit."""
    statistics = imputer.statistics_.astype(np.float64)
    empty = np.isnan(statistics) & (not imputer.keep_empty_features)
    return np.flatnonzero(~empty)


def _indicated(imputer: SimpleImputer) -> Any:
    """Return the places of the features that have a column which says where they are missing."""
    return imputer.indicator_.features_ if imputer.add_indicator else np.empty(0, dtype=np.int64)
