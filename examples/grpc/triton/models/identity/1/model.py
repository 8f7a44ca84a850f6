"""Returns its input."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Called by Triton's Python backend."""

    def execute(self, requests):
        """Answer each request with one response."""
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor.from_dlpack("OUTPUT0", pb_utils.get_input_tensor_by_name(request, "INPUT0"))]
            )
            for request in requests
        ]
