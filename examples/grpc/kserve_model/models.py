"""The models, and the conversion between tensors and arrays."""

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as messages

Tensors = dict[str, np.ndarray]

NUMPY_TYPES = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


class Refused(Exception):
    """A request that cannot be answered, with its gRPC status and a text in Triton's words."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class Tensor:
    """An input or output; -1 in `shape` stands for a dimension of any size."""

    name: str
    datatype: str
    shape: tuple[int, ...] = (-1,)


@dataclass(frozen=True)
class Model:
    """A model; a decoupled one gives any number of answers to a request."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    run: Callable[[Tensors], Iterator[Tensors]]
    decoupled: bool = False


def _add_sub(tensors: Tensors) -> Iterator[Tensors]:
    one, two = tensors["INPUT0"], tensors["INPUT1"]
    if one.shape != two.shape:
        raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"INPUT0 is {list(one.shape)} and INPUT1 {list(two.shape)}")
    yield {"OUTPUT0": one + two, "OUTPUT1": one - two}


def _identity(tensors: Tensors) -> Iterator[Tensors]:
    yield {"OUTPUT0": tensors["INPUT0"]}


def _repeat(tensors: Tensors) -> Iterator[Tensors]:
    for value in tensors["IN"].ravel():
        yield {"OUT": np.array([value], dtype="<i4")}


MODELS = {
    model.name: model
    for model in (
        Model(
            "add_sub",
            (Tensor("INPUT0", "FP32"), Tensor("INPUT1", "FP32")),
            (Tensor("OUTPUT0", "FP32"), Tensor("OUTPUT1", "FP32")),
            _add_sub,
        ),
        Model("identity", (Tensor("INPUT0", "UINT8"),), (Tensor("OUTPUT0", "UINT8"),), _identity),
        Model("identity_bytes", (Tensor("INPUT0", "BYTES"),), (Tensor("OUTPUT0", "BYTES"),), _identity),
        Model("repeat", (Tensor("IN", "INT32"),), (Tensor("OUT", "INT32", (1,)),), _repeat, decoupled=True),
    )
}


def read_inputs(model: Model, request: messages.ModelInferRequest) -> Tensors:
    """The request's tensors, checked against the model's. Raises `Refused`."""
    expected = {tensor.name: tensor for tensor in model.inputs}
    sent = [tensor.name for tensor in request.inputs]
    if sorted(sent) != sorted(expected):
        missing = sorted(set(expected) - set(sent))
        raise _bad(
            f"expected {len(expected)} inputs but got {len(sent)} inputs for model '{model.name}'. "
            f"Got input(s) {sent}, but missing required input(s) {missing}. Please provide all required input(s)."
        )
    raw = request.raw_input_contents
    if raw and len(raw) != len(sent):
        raise _bad(f"expected {len(sent)} raw inputs but got {len(raw)} for model '{model.name}'")
    tensors = {}
    for index, tensor in enumerate(request.inputs):
        wanted = expected[tensor.name]
        if tensor.datatype != wanted.datatype:
            raise _bad(
                f"inference input '{tensor.name}' data-type is '{tensor.datatype}', "
                f"but model '{model.name}' expects '{wanted.datatype}'"
            )
        if len(tensor.shape) != len(wanted.shape) or min(tensor.shape, default=0) < 0:
            raise _bad(
                f"unexpected shape for input '{tensor.name}' for model '{model.name}'. "
                f"Expected {list(wanted.shape)}, got {list(tensor.shape)}."
            )
        data = raw[index] if raw else _contents(tensor)
        tensors[tensor.name] = _decode(tensor, data)
    return tensors


def _contents(tensor: messages.ModelInferRequest.InferInputTensor) -> bytes:
    """Read the typed lists of a tensor into an array."""
    if tensor.datatype not in CONTENTS:
        raise _bad(f"inference input '{tensor.name}' of type {tensor.datatype} must come as raw_input_contents")
    values = getattr(tensor.contents, CONTENTS[tensor.datatype])
    if tensor.datatype == "BYTES":
        return b"".join(struct.pack("<I", len(value)) + value for value in values)
    return np.array(values, dtype=NUMPY_TYPES[tensor.datatype]).tobytes()


def _decode(tensor: messages.ModelInferRequest.InferInputTensor, data: bytes) -> np.ndarray:
    if tensor.datatype == "BYTES":
        values = np.array(_split_strings(tensor.name, data), dtype=object)
    else:
        dtype = np.dtype(NUMPY_TYPES[tensor.datatype])
        if len(data) % dtype.itemsize:
            raise _bad(f"input '{tensor.name}' has {len(data)} bytes, which is no whole number of elements")
        values = np.frombuffer(data, dtype=dtype)
    if len(values) != math.prod(tensor.shape):
        raise _bad(
            f"unexpected total byte size {len(data)} for input '{tensor.name}', expecting "
            f"{math.prod(tensor.shape)} elements, got {len(values)}"
        )
    return values.reshape(tuple(tensor.shape))


def _split_strings(name: str, data: bytes) -> list[bytes]:
    """Read strings that each follow their length, 4 bytes little-endian."""
    values, at = [], 0
    while at < len(data):
        if at + 4 > len(data) or at + 4 + (size := struct.unpack_from("<I", data, at)[0]) > len(data):
            raise _bad(f"incomplete string length for inference input '{name}'")
        values.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return values


def encode(array: np.ndarray) -> bytes:
    """The raw contents of an output."""
    if array.dtype == object:
        return b"".join(struct.pack("<I", len(value)) + value for value in array.ravel())
    return array.tobytes()


def _bad(text: str) -> Refused:
    return Refused(grpc.StatusCode.INVALID_ARGUMENT, text)
