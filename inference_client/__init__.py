"""What users install: the Python client (`InferenceClient`) and the `infer` command.

It imports no other package of this repository. `inference_client.errors` holds everything that the client raises.
"""

from inference_client.async_client import AsyncBatch, AsyncInferenceClient
from inference_client.batches import Batch, Result
from inference_client.client import InferenceClient
from inference_client.models import ModelRegistration, ModelView
from inference_client.outputs import Output, OutputFile
from inference_client.schemas import TaskView
from inference_client.serving import ServingSpec

__all__ = [
    "AsyncBatch",
    "AsyncInferenceClient",
    "Batch",
    "InferenceClient",
    "ModelRegistration",
    "ModelView",
    "Output",
    "OutputFile",
    "Result",
    "ServingSpec",
    "TaskView",
]
