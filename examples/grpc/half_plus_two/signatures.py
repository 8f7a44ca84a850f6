"""The signatures of half_plus_two, and the conversion between tensors and arrays."""

import math

import numpy as np
from tensorflow.core.framework.tensor_pb2 import DT_FLOAT, DT_STRING, DataType, TensorProto, TensorShapeProto
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef, TensorInfo

MAX_VALUES = 2**26
"""A few bytes can claim any shape, so the size is checked before memory is taken."""


class BadTensor(Exception):
    """The model cannot take this tensor; the text says why."""


def _info(name: str, dtype: int, shape: tuple[int, ...] | None) -> TensorInfo:
    dims = [TensorShapeProto.Dim(size=size) for size in shape or ()]
    return TensorInfo(name=name, dtype=dtype, tensor_shape=TensorShapeProto(dim=dims, unknown_rank=shape is None))


def _examples(output: str, method: str) -> SignatureDef:
    return SignatureDef(
        inputs={"inputs": _info("tf_example:0", DT_STRING, (-1,))},
        outputs={output: _info("y:0", DT_FLOAT, (-1, 1))},
        method_name=f"tensorflow/serving/{method}",
    )


SIGNATURES = {
    "serving_default": SignatureDef(
        inputs={"x": _info("x:0", DT_FLOAT, None)},
        outputs={"y": _info("y:0", DT_FLOAT, None)},
        method_name="tensorflow/serving/predict",
    ),
    "classify_x_to_y": _examples("scores", "classify"),
    "regress_x_to_y": _examples("outputs", "regress"),
}


def decode_tensor(tensor: TensorProto) -> np.ndarray:
    """Read a tensor of floats. Raises `BadTensor`."""
    if tensor.dtype != DT_FLOAT:
        known = tensor.dtype in DataType.values()
        given = DataType.Name(tensor.dtype).removeprefix("DT_").lower() if known else f"type {tensor.dtype}"
        raise BadTensor(f"Expects arg[0] to be float but {given} is provided")
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if any(size < 0 for size in shape):
        raise BadTensor(f"the tensor's shape {shape} has a negative size")
    size = math.prod(shape)
    if size > MAX_VALUES:
        raise BadTensor(f"the tensor's shape {shape} has more than {MAX_VALUES} values")
    if tensor.tensor_content:
        if len(tensor.tensor_content) != 4 * size:
            raise BadTensor(f"the tensor's shape {shape} needs {4 * size} bytes, not {len(tensor.tensor_content)}")
        values = np.frombuffer(tensor.tensor_content, dtype="<f4")
    else:
        values = np.array(tensor.float_val, dtype=np.float32)
        if len(values) > size or (size and not len(values)):
            raise BadTensor(f"the tensor's shape {shape} does not fit its {len(values)} values")
        # The last value stands for all that follow.
        values = np.pad(values, (0, size - len(values)), mode="edge") if len(values) < size else values
    return values.reshape(shape)


def encode_tensor(values: np.ndarray) -> TensorProto:
    """A tensor as TensorFlow Serving returns it: a list of values."""
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in values.shape])
    return TensorProto(dtype=DT_FLOAT, tensor_shape=shape, float_val=values.ravel().tolist())
