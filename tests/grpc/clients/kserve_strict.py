"""With this header the first error ends a stream, with its gRPC status."""

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
values = grpcclient.InferInput("INPUT0", [3], "FP32")
values.set_data_from_numpy(np.array([1, 2, 3], dtype=np.float32))

answers = queue.Queue()
headers = {"triton_grpc_error": "true", **KEY}
client.start_stream(lambda result, error: answers.put((result, error)), headers=headers)
client.async_stream_infer("add_sub", [values])
print(answers.get(timeout=30)[1].status())  # StatusCode.INVALID_ARGUMENT
client.stop_stream()

client.close()
