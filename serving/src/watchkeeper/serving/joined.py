"""One input for all FP64 columns of an ONNX graph: each input costs as much as ten trees do.

The graph of a version has one input a column. What is done with them stays the same: they are
split again inside, or not even that where the graph begins by putting them side by side.
"""

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper


def join(model: ModelProto, columns: Sequence[str]) -> str:
    """Give the graph one input, of shape [rows, columns], for these inputs of shape [rows, 1].

    There must be two of them at least. Returns the name of the new input, which is longer than
    that of any other.
    """
    graph = model.graph
    name = ", ".join(given.name for given in graph.input)
    nodes = [
        helper.make_node("Identity", [name], node.output) if _joins(node, columns) else node
        for node in graph.node
    ]
    if any(each in columns for node in nodes for each in node.input):
        widths = numpy_helper.from_array(np.ones(len(columns), np.int64), f"{name}: widths")
        graph.initializer.append(widths)
        nodes.insert(0, helper.make_node("Split", [name, widths.name], columns, axis=1))
    others = [given for given in graph.input if given.name not in columns]
    joined = helper.make_tensor_value_info(name, TensorProto.DOUBLE, [None, len(columns)])
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes)
    graph.input.extend([*others, joined])
    return name


def _joins(node: NodeProto, columns: Sequence[str]) -> bool:
    axis = [each.i for each in node.attribute if each.name == "axis"]
    return node.op_type == "Concat" and list(node.input) == list(columns) and axis == [1]
