"""An application that does not exist."""

import os
from pathlib import Path

import grpc
from user_defined_protos_pb2 import UserDefinedMessage
from user_defined_protos_pb2_grpc import UserDefinedServiceStub


def open_channel():
    """Use TLS with the server's certificate as root, or plain text if no certificate is named."""
    target = os.environ["GRPC_TARGET"]
    if certificate := os.environ.get("GRPC_CERTIFICATE"):
        return grpc.secure_channel(target, grpc.ssl_channel_credentials(Path(certificate).read_bytes()))
    return grpc.insecure_channel(target)


KEY = [("x-api-key", os.environ["GRPC_API_KEY"])] if "GRPC_API_KEY" in os.environ else []

stub = UserDefinedServiceStub(open_channel())
request = UserDefinedMessage(name="foo", num=30, origin="bar")
try:
    stub.__call__(request, metadata=[("application", "nope"), *KEY])
except grpc.RpcError as rpc_error:
    print(f"status code: {rpc_error.code()}")  # StatusCode.NOT_FOUND
    print(f"details: {rpc_error.details()}")  # Application 'nope' not found. ...
