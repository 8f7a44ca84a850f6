"""Predict and read the signatures under a path, so that one address serves several models."""

import os
from pathlib import Path

import grpc
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2


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

channel = open_channel()
grpc.channel_ready_future(channel).result(timeout=15)

for route in ("/service1", "/service1/tensorflow.serving.PredictionService"):
    predict = channel.unary_unary(
        route + "/Predict",
        request_serializer=predict_pb2.PredictRequest.SerializeToString,
        response_deserializer=predict_pb2.PredictResponse.FromString,
    )
    response = predict(request, timeout=30, metadata=KEY)
    print(route, list(response.outputs["y"].float_val))  # [2.5, 3.0, 4.5]

metadata = channel.unary_unary(
    "/service1/GetModelMetadata",
    request_serializer=get_model_metadata_pb2.GetModelMetadataRequest.SerializeToString,
    response_deserializer=get_model_metadata_pb2.GetModelMetadataResponse.FromString,
)
request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
request.model_spec.name = "half_plus_two"
signatures = get_model_metadata_pb2.SignatureDefMap()
metadata(request, timeout=30, metadata=KEY).metadata["signature_def"].Unpack(signatures)
print(list(signatures.signature_def["serving_default"].inputs))  # ['x']
