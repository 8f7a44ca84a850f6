"""A decoupled model: any number of answers to one request, the last one marked."""

import os
import queue

import numpy as np
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException


def open_client():
    """Use TLS with the server's certificate as root, or plain text if no certificate is named."""
    target = os.environ["GRPC_TARGET"]
    if certificate := os.environ.get("GRPC_CERTIFICATE"):
        return grpcclient.InferenceServerClient(target, ssl=True, root_certificates=certificate)
    return grpcclient.InferenceServerClient(target)


KEY = {"x-api-key": os.environ["GRPC_API_KEY"]} if "GRPC_API_KEY" in os.environ else {}

client = open_client()
values = grpcclient.InferInput("IN", [4], "INT32")
values.set_data_from_numpy(np.array([4, 2, 0, 1], dtype=np.int32))

answers = queue.Queue()
client.start_stream(lambda result, error: answers.put((result, error)), headers=KEY)
client.async_stream_infer("repeat", [values], request_id="1", enable_empty_final_response=True)
while True:
    result, _ = answers.get(timeout=30)
    if result.get_response().parameters["triton_final_response"].bool_param:
        break
    print(result.as_numpy("OUT").tolist())  # [4], [2], [0], [1]
client.stop_stream()

try:
    client.infer("repeat", [values], headers=KEY)
except InferenceServerException as error:
    print(error.status())  # StatusCode.UNIMPLEMENTED

client.close()
