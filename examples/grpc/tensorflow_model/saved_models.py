"""SavedModels in the folders `<name>/<version>/`, as TensorFlow Serving keeps them, loaded to be called."""

import math
from pathlib import Path
from typing import Any

import tensorflow as tf
from serving_rules import Servable
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

TAG = "serve"
MAX_VALUES = 2**26
"""A few bytes can claim any shape, and TensorFlow repeats the last value to fill it."""
_FIELDS = {
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.int32: "int_val",
    tf.int64: "int64_val",
    tf.bool: "bool_val",
    tf.string: "string_val",
}
"""Where TensorFlow Serving puts the values of an output, and its clients look for them."""


class BadTensor(Exception):
    """The model cannot take this tensor; the text says why."""


class LoadedModel:
    """One version of a model."""

    def __init__(self, folder: Path) -> None:
        """Load it. Raises `OSError` or TensorFlow's own errors where it is none."""
        # Held, or its variables are gone.
        self._model = tf.saved_model.load(str(folder), tags=[TAG])
        described = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
        graph = next(each for each in described.meta_graphs if TAG in each.meta_info_def.tags)
        self.signatures = {name: each for name, each in graph.signature_def.items() if name in self._model.signatures}
        """By name, each a SignatureDef; those that cannot be called are left out."""

    def predict(self, signature: str, inputs: dict[str, Any]) -> dict[str, Any]:
        """Named tensors (TensorProto) from named tensors. Raises `BadTensor`."""
        described = self.signatures[signature].inputs
        given = {name: _read(name, tensor, described[name].dtype) for name, tensor in inputs.items()}
        try:
            outputs = self._model.signatures[signature](**given)
        except (tf.errors.InvalidArgumentError, TypeError, ValueError) as error:
            raise BadTensor(str(error)) from error
        return {name: _write(value) for name, value in outputs.items()}


def load_models(folder: Path) -> dict[str, dict[int, LoadedModel]]:
    """Every version of every model below the folder, by name and version. Raises `SystemExit` if there is none."""
    models: dict[str, dict[int, LoadedModel]] = {}
    for saved in sorted(folder.glob("*/*/saved_model.pb")):
        name, version = saved.parts[-3:-1]
        if version.isdecimal():
            models.setdefault(name, {})[int(version)] = LoadedModel(saved.parent)
            print(f"loaded {name} version {version}", flush=True)
    if not models:
        raise SystemExit(f"there is no <name>/<version>/saved_model.pb in {folder}")
    return models


def servables_of(models: dict[str, dict[int, LoadedModel]]) -> dict[str, Servable]:
    """What may be named in a model spec."""
    return {name: Servable(tuple(sorted(versions))) for name, versions in models.items()}


def _read(name: str, tensor: Any, dtype: int) -> Any:
    try:
        wanted, given = tf.as_dtype(dtype), tf.as_dtype(tensor.dtype)
    except TypeError as error:
        raise BadTensor(f"input {name}: {error}") from error
    if given != wanted:
        raise BadTensor(f"Expects arg[0] to be {wanted.name} but {given.name} is provided")
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if math.prod(shape) > MAX_VALUES:
        raise BadTensor(f"input {name}: the tensor's shape {shape} has more than {MAX_VALUES} values")
    try:
        return tf.io.parse_tensor(tensor.SerializeToString(), wanted)
    except tf.errors.InvalidArgumentError as error:
        raise BadTensor(f"input {name}: the tensor's values do not fit its shape {shape}") from error


def _write(value: tf.Tensor) -> Any:
    field = _FIELDS.get(value.dtype)
    if field is None:
        return tf.make_tensor_proto(value)
    tensor = TensorProto(dtype=value.dtype.as_datatype_enum, tensor_shape=value.shape.as_proto())
    getattr(tensor, field).extend(value.numpy().ravel().tolist())
    return tensor
