"""The state of a model's versions, and the answer for an unknown model."""

import os
from pathlib import Path

import grpc
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)


def open_channel():
    """Use TLS with the server's certificate as root, or plain text if no certificate is named."""
    target = os.environ["GRPC_TARGET"]
    if certificate := os.environ.get("GRPC_CERTIFICATE"):
        return grpc.secure_channel(target, grpc.ssl_channel_credentials(Path(certificate).read_bytes()))
    return grpc.insecure_channel(target)


KEY = [("x-api-key", os.environ["GRPC_API_KEY"])] if "GRPC_API_KEY" in os.environ else []

channel = open_channel()
stub = model_service_pb2_grpc.ModelServiceStub(channel)
request = get_model_status_pb2.GetModelStatusRequest()
request.model_spec.name = "half_plus_two"
for version in stub.GetModelStatus(request, timeout=30, metadata=KEY).model_version_status:
    print(version.version, get_model_status_pb2.ModelVersionStatus.State.Name(version.state))  # 1 AVAILABLE

request = predict_pb2.PredictRequest()
request.model_spec.name = "nobody"
try:
    prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=30, metadata=KEY)
except grpc.RpcError as rpc_error:
    print(rpc_error.code())  # StatusCode.NOT_FOUND
    print(rpc_error.details())  # Servable not found for request: Latest(nobody)
