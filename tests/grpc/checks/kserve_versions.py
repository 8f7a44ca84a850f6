"""Which versions of a model there are, and the statistics of all models."""

import os

import tritonclient.grpc as grpcclient

client = grpcclient.InferenceServerClient(
    os.environ["GRPC_TARGET"], ssl=True, root_certificates=os.environ["GRPC_CERTIFICATE"]
)
print(client.is_model_ready("add_sub", "1"), client.is_model_ready("add_sub", "9"))  # True False
print(client.get_model_metadata("add_sub").versions)  # ['1']
print(sorted({stats.name for stats in client.get_inference_statistics().model_stats}))  # every model
