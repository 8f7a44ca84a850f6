"""Predict with TensorFlow Serving's own stub; the model's name leads to its deployment."""

import os
from pathlib import Path

import grpc
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


def open_channel():
    """Use TLS with the server's certificate as root, or plain text if no certificate is named."""
    target = os.environ["GRPC_TARGET"]
    if certificate := os.environ.get("GRPC_CERTIFICATE"):
        return grpc.secure_channel(target, grpc.ssl_channel_credentials(Path(certificate).read_bytes()))
    return grpc.insecure_channel(target)


KEY = [("x-api-key", os.environ["GRPC_API_KEY"])] if "GRPC_API_KEY" in os.environ else []


def make_tensor(values):
    """What `tf.make_tensor_proto(values, dtype=tf.float32)` makes, without TensorFlow itself."""
    shape = tensor_shape_pb2.TensorShapeProto(dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=len(values))])
    return tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, tensor_shape=shape, float_val=values)


request = predict_pb2.PredictRequest()
request.model_spec.name = "half_plus_two"
request.inputs["x"].CopyFrom(make_tensor([1.0, 2.0, 5.0]))

stub = prediction_service_pb2_grpc.PredictionServiceStub(open_channel())
response = stub.Predict(request, timeout=30, metadata=KEY)
print(list(response.outputs["y"].float_val))  # [2.5, 3.0, 4.5]
print(response.model_spec.name, response.model_spec.version.value)  # half_plus_two 1
