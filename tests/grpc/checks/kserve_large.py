"""A tensor of 64 MiB there and back."""

import os

import numpy as np
import tritonclient.grpc as grpcclient

client = grpcclient.InferenceServerClient(
    os.environ["GRPC_TARGET"], ssl=True, root_certificates=os.environ["GRPC_CERTIFICATE"]
)
sent = np.arange(64 * 1024**2, dtype=np.uint8)
tensor = grpcclient.InferInput("INPUT0", [len(sent)], "UINT8")
tensor.set_data_from_numpy(sent)
print(np.array_equal(client.infer("identity", [tensor]).as_numpy("OUTPUT0"), sent))  # True

# Left to the end of the program, it sometimes waits for ever.
client.close()
