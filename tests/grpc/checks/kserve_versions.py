"""Which versions of a model there are, and the statistics of all models."""

import os

import numpy as np
import tritonclient.grpc as grpcclient

client = grpcclient.InferenceServerClient(
    os.environ["GRPC_TARGET"], ssl=True, root_certificates=os.environ["GRPC_CERTIFICATE"]
)
print(client.is_model_ready("add_sub", "1"), client.is_model_ready("add_sub", "9"))  # True False
print(client.get_model_metadata("add_sub").versions)  # ['1']
inputs = [grpcclient.InferInput("INPUT0", [1], "FP32"), grpcclient.InferInput("INPUT1", [1], "FP32")]
for tensor in inputs:
    tensor.set_data_from_numpy(np.zeros(1, dtype=np.float32))
client.infer("add_sub", inputs)
(counted,) = client.get_inference_statistics("add_sub").model_stats
counts = counted.inference_stats
print(counts.success.count > 0, counts.success.count == counts.queue.count == counts.compute_infer.count)  # True True
print(sorted({stats.name for stats in client.get_inference_statistics().model_stats}))  # every model

# Left to the end of the program, it sometimes waits for ever.
client.close()
