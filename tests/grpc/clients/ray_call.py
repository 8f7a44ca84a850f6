"""Call a method of the user-defined service."""

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
response, call = stub.__call__.with_call(request=request, metadata=[("application", "app1"), *KEY])
print(f"status code: {call.code()}")  # StatusCode.OK
print(f"greeting: {response.greeting}")  # Hello foo from bar
print(f"num: {response.num}")  # 60
