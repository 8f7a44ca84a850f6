"""Name the application, the request and the model to use; get the request's id back."""

import os
from pathlib import Path

import grpc
from user_defined_protos_pb2 import UserDefinedMessage2
from user_defined_protos_pb2_grpc import UserDefinedServiceStub


def open_channel():
    """Use TLS with the server's certificate as root, or plain text if no certificate is named."""
    target = os.environ["GRPC_TARGET"]
    if certificate := os.environ.get("GRPC_CERTIFICATE"):
        return grpc.secure_channel(target, grpc.ssl_channel_credentials(Path(certificate).read_bytes()))
    return grpc.insecure_channel(target)


KEY = [("x-api-key", os.environ["GRPC_API_KEY"])] if "GRPC_API_KEY" in os.environ else []

stub = UserDefinedServiceStub(open_channel())
metadata = (
    ("application", "app1"),
    ("request_id", "123"),
    ("multiplexed_model_id", "999"),
)
response, call = stub.Multiplexing.with_call(request=UserDefinedMessage2(), metadata=(*metadata, *KEY))
print(f"greeting: {response.greeting}")  # Method2 called model, loading model: 999
for key, value in call.trailing_metadata():
    print(f"trailing metadata key: {key}, value {value}")  # request_id, 123
