"""Ask which applications exist, and whether the server is healthy, with Ray's own stubs."""

import os
from pathlib import Path

import grpc
from ray.serve.generated.serve_pb2 import HealthzRequest, ListApplicationsRequest
from ray.serve.generated.serve_pb2_grpc import RayServeAPIServiceStub


def open_channel():
    """Use TLS with the server's certificate as root, or plain text if no certificate is named."""
    target = os.environ["GRPC_TARGET"]
    if certificate := os.environ.get("GRPC_CERTIFICATE"):
        return grpc.secure_channel(target, grpc.ssl_channel_credentials(Path(certificate).read_bytes()))
    return grpc.insecure_channel(target)


KEY = [("x-api-key", os.environ["GRPC_API_KEY"])] if "GRPC_API_KEY" in os.environ else []

stub = RayServeAPIServiceStub(open_channel())
response = stub.ListApplications(ListApplicationsRequest(), metadata=KEY)
print(f"Applications: {sorted(response.application_names)}")  # ['app1', ...]
response = stub.Healthz(HealthzRequest(), metadata=KEY)
print(f"Health: {response.message}")  # success
