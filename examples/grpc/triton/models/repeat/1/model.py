"""A decoupled model: it sends a response for each value of its input."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Called by Triton's Python backend."""

    def execute(self, requests):
        """Send any number of responses to each request, then the flag that ends them."""
        for request in requests:
            sender = request.get_response_sender()
            for value in np.from_dlpack(pb_utils.get_input_tensor_by_name(request, "IN")):
                output = np.array([value], dtype=np.int32)
                sender.send(pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack("OUT", output)]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
