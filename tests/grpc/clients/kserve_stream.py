"""A stream: answers come in the order of the requests; a bad request is reported and the stream continues."""

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

answers = queue.Queue()
client.start_stream(lambda result, error: answers.put((result, error)), headers=KEY)
for number in range(100):
    client.async_stream_infer("add_sub", inputs, request_id=str(number))
ids = [answers.get(timeout=30)[0].get_response().id for _ in range(100)]
print(ids == [str(number) for number in range(100)])  # True

client.async_stream_infer("add_sub", inputs[:1])
result, error = answers.get(timeout=30)
print(result is None, "INPUT1" in str(error))  # True True
client.async_stream_infer("add_sub", inputs, request_id="after")
print(answers.get(timeout=30)[0].get_response().id)  # after
client.stop_stream()

client.close()
