"""Authenticate, then stream requests to a kernel. `stream_pb2` is compiled from stream.proto."""

import base64
import json
import os
from pathlib import Path

import grpc
import stream_pb2
import stream_pb2_grpc


def open_channel(target):
    """Use TLS with the server's certificate as root, or plain text if no certificate is named."""
    if certificate := os.environ.get("GRPC_CERTIFICATE"):
        return grpc.secure_channel(target, grpc.ssl_channel_credentials(Path(certificate).read_bytes()))
    return grpc.insecure_channel(target)


def authenticate(target):
    """The address to stream to, and the token that opens the stream."""
    if token := os.environ.get("STREAM_TOKEN"):
        return target, token
    request = stream_pb2.AuthRequest()
    request.attributes["model_name"] = os.environ["MODEL_NAME"]
    if key := os.environ.get("GRPC_API_KEY"):
        request.attributes["token"] = key
    else:
        name_and_password = f"{os.environ['USER_NAME']}:{os.environ['USER_PASSWORD']}"
        request.attributes["userpasswd"] = base64.b64encode(name_and_password.encode()).decode()
    response = stream_pb2_grpc.InferenceStub(open_channel(target)).auth(request)
    return response.url, response.token


def requests(token):
    """The token first, then the data."""
    yield stream_pb2.Request(token=token)
    for number in range(20):
        data = {"key": number, "data": "some words " * number}
        yield stream_pb2.Request(data=json.dumps(data).encode())


url, token = authenticate(os.environ["GRPC_TARGET"])
stub = stream_pb2_grpc.InferenceStub(open_channel(url))
answers = [json.loads(response.data) for response in stub.stream_infer(requests(token))]
print([answer["key"] for answer in answers] == list(range(20)))  # True
print(answers[3]["data"])  # {'words': 6, 'mean_length': 4.5}
