"""Calls of a category that a key closes, without the key and with it, unary and on a stream."""

import os
import queue

import numpy as np
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

client = grpcclient.InferenceServerClient(
    os.environ["GRPC_TARGET"], ssl=True, root_certificates=os.environ["GRPC_CERTIFICATE"]
)
inputs = [grpcclient.InferInput("INPUT0", [1], "FP32"), grpcclient.InferInput("INPUT1", [1], "FP32")]
for number, tensor in enumerate(inputs):
    tensor.set_data_from_numpy(np.array([number], dtype=np.float32))
to = {"application": os.environ["APPLICATION"]}
opened = {**to, "triton-grpc-protocol-infer-key": "infer-value"}

try:
    client.infer("add_sub", inputs, headers=to)
except InferenceServerException as error:
    print(error.status(), error.message())  # StatusCode.UNAVAILABLE This protocol is restricted, ...
print(client.infer("add_sub", inputs, headers=opened).as_numpy("OUTPUT0").tolist())  # [1.0]

for headers in (to, opened):
    answers = queue.Queue()
    client.start_stream(lambda result, error, answers=answers: answers.put((result, error)), headers=headers)
    client.async_stream_infer("add_sub", inputs)
    result, error = answers.get(timeout=30)
    print(error.message() if error else result.as_numpy("OUTPUT0").tolist())
    client.stop_stream()

# Left to the end of the program, it sometimes waits for ever.
client.close()
