"""Merge the FP64 inputs of an ONNX graph: each input costs as much time as ten trees.

A graph has one input per column. The merged graph has one input for all FP64 columns. It splits
this input again, or passes it on where the original graph concatenates the same columns.
"""

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper


def merge_inputs(model: ModelProto, columns: Sequence[str]) -> str:
    """Replace inputs of shape [rows, 1] by one input of shape [rows, columns]. Changes ``model``.

    Args:
        model: The graph.
        columns: Names of at least two FP64 inputs.

    Returns:
        The name of the new input. It contains all names, so no other input has the same name.
    """
    graph = model.graph
    name = ", ".join(each.name for each in graph.input)
    nodes = [
        helper.make_node("Identity", [name], node.output) if _concatenates(node, columns) else node
        for node in graph.node
    ]
    if any(each in columns for node in nodes for each in node.input):
        widths = numpy_helper.from_array(np.ones(len(columns), np.int64), f"{name}: widths")
        graph.initializer.append(widths)
        nodes.insert(0, helper.make_node("Split", [name, widths.name], columns, axis=1))
    others = [each for each in graph.input if each.name not in columns]
    merged = helper.make_tensor_value_info(name, TensorProto.DOUBLE, [None, len(columns)])
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes)
    graph.input.extend([*others, merged])
    return name


def _concatenates(node: NodeProto, columns: Sequence[str]) -> bool:
    axis = [each.i for each in node.attribute if each.name == "axis"]
    return node.op_type == "Concat" and list(node.input) == list(columns) and axis == [1]
