"""Statuses, details and trailers that the service chose itself."""

import os
import uuid
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
name = f"foo-{uuid.uuid4()}"
request = UserDefinedMessage(name=name, num=30, origin="bar")
metadata = (("application", "num-lookup"), *KEY)

# The first call of a name misses.
try:
    stub.__call__.with_call(request=request, metadata=metadata)
except grpc.RpcError as rpc_error:
    trailers = dict(rpc_error.trailing_metadata())
    print(rpc_error.code())  # StatusCode.INVALID_ARGUMENT
    print(rpc_error.details().removeprefix(name))  # not found, adding to nums.
    print(trailers["num"].isdigit(), "request_id" in trailers)  # True True

# The second one hits.
response, call = stub.__call__.with_call(request=request, metadata=metadata)
trailers = dict(call.trailing_metadata())
print(call.code())  # StatusCode.OK; newer versions of grpcio drop the details of an OK
print(trailers["num"] == str(response.num), "request_id" in trailers)  # True True
