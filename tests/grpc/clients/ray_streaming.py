"""Streams in each direction."""

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
metadata = [("application", "app1"), *KEY]

for response in stub.Streaming(UserDefinedMessage(name="foo", num=30, origin="bar"), metadata=metadata):
    print(f"greeting: {response.greeting}")  # n: Hello foo from bar
    print(f"num: {response.num}")  # 60 + n

numbers = (UserDefinedMessage(num=num) for num in range(5))
response = stub.Collecting(numbers, metadata=metadata)
print(f"{response.greeting}, sum {response.num}")  # 5 messages, sum 10

names = (UserDefinedMessage(name=name, origin="bar") for name in ("foo", "bye", "never read"))
for response in stub.Chatting(names, metadata=metadata):
    print(f"greeting: {response.greeting}")  # Hello foo from bar, Hello bye from bar
