"""Infer with Triton's client: wait for the answer, or be called with it."""

import os
import queue

import numpy as np
import tritonclient.grpc as grpcclient


def open_client():
    """Use TLS with the server's certificate as root, or plain text if no certificate is named."""
    target = os.environ["GRPC_TARGET"]
    if certificate := os.environ.get("GRPC_CERTIFICATE"):
        return grpcclient.InferenceServerClient(target, ssl=True, root_certificates=certificate)
    return grpcclient.InferenceServerClient(target)


KEY = {"x-api-key": os.environ["GRPC_API_KEY"]} if "GRPC_API_KEY" in os.environ else {}

client = open_client()
inputs = [grpcclient.InferInput("INPUT0", [3], "FP32"), grpcclient.InferInput("INPUT1", [3], "FP32")]
inputs[0].set_data_from_numpy(np.array([1, 2, 3], dtype=np.float32))
inputs[1].set_data_from_numpy(np.array([10, 20, 30], dtype=np.float32))

result = client.infer("add_sub", inputs, request_id="1", headers=KEY)
print(result.as_numpy("OUTPUT0").tolist())  # [11.0, 22.0, 33.0]
print(result.as_numpy("OUTPUT1").tolist())  # [-9.0, -18.0, -27.0]

answers = queue.Queue()
client.async_infer("add_sub", inputs, lambda result, error: answers.put((result, error)), headers=KEY)
result, error = answers.get(timeout=30)
print(result.as_numpy("OUTPUT0").tolist(), error)  # [11.0, 22.0, 33.0] None

client.close()
