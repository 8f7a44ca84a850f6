"""Classify an image: the classifier calls another deployment for its first step."""

import base64
import os
from pathlib import Path

import grpc
from user_defined_protos_pb2 import ImageData
from user_defined_protos_pb2_grpc import ImageClassificationServiceStub


def open_channel():
    """Use TLS with the server's certificate as root, or plain text if no certificate is named."""
    target = os.environ["GRPC_TARGET"]
    if certificate := os.environ.get("GRPC_CERTIFICATE"):
        return grpc.secure_channel(target, grpc.ssl_channel_credentials(Path(certificate).read_bytes()))
    return grpc.insecure_channel(target)


KEY = [("x-api-key", os.environ["GRPC_API_KEY"])] if "GRPC_API_KEY" in os.environ else []

image = Path("examples/grpc/image_classifier/circle.png").read_bytes()
stub = ImageClassificationServiceStub(open_channel())
request = ImageData(url="data:image/png;base64," + base64.b64encode(image).decode())
metadata = (("application", "image-classifier"), *KEY)
response, call = stub.Predict.with_call(request=request, metadata=metadata)
print(f"status code: {call.code()}")  # StatusCode.OK
print(f"Classes: {response.classes}")  # ['circle', ...]
print(f"Probabilities: {response.probabilities}")  # [0.99..., ...]
