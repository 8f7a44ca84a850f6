"""Ask what exists; these calls are answered even while every model is busy."""

import os

import tritonclient.grpc as grpcclient


def open_client():
    """Use TLS with the server's certificate as root, or plain text if no certificate is named."""
    target = os.environ["GRPC_TARGET"]
    if certificate := os.environ.get("GRPC_CERTIFICATE"):
        return grpcclient.InferenceServerClient(target, ssl=True, root_certificates=certificate)
    return grpcclient.InferenceServerClient(target)


KEY = {"x-api-key": os.environ["GRPC_API_KEY"]} if "GRPC_API_KEY" in os.environ else {}

client = open_client()
print(client.is_server_live(headers=KEY), client.is_server_ready(headers=KEY))  # True True
print(client.is_model_ready("add_sub", headers=KEY))  # True
print(client.is_model_ready("nobody", headers=KEY))  # False
metadata = client.get_model_metadata("add_sub", headers=KEY)
print([(tensor.name, tensor.datatype) for tensor in metadata.inputs])  # [('INPUT0', 'FP32'), ('INPUT1', 'FP32')]
print(client.get_model_config("repeat", headers=KEY).config.model_transaction_policy.decoupled)  # True
index = client.get_model_repository_index(headers=KEY)
print("add_sub" in [model.name for model in index.models])  # True
statistics = client.get_inference_statistics("add_sub", headers=KEY)
print(statistics.model_stats[0].name)  # add_sub

client.close()
