"""Makes `network.onnx`: how steep a picture is at each pixel, by Sobel's two filters. Needs the package `onnx`.

I. Sobel and G. Feldman, A 3x3 isotropic gradient operator for image processing, 1968.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE: list[int | str] = [1, 1, "height", "width"]


def make_network(path: Path) -> None:
    """One convolution with two filters, and the length of what they find."""
    across = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], np.float32) / 8
    filters = numpy_helper.from_array(np.stack([across, across.T])[:, None], "filters")
    nodes = [
        helper.make_node("Conv", ["picture", "filters"], ["slopes"], pads=[1, 1, 1, 1]),
        helper.make_node("ReduceL2", ["slopes", "axis"], ["edges"], keepdims=1),
    ]
    graph = helper.make_graph(
        nodes,
        "edges",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, SIZE)],
        [helper.make_tensor_value_info("edges", TensorProto.FLOAT, SIZE)],
        [filters, numpy_helper.from_array(np.array([1]), "axis")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)


if __name__ == "__main__":
    make_network(Path(sys.argv[1]))
