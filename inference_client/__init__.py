"""What users install: the Python client (`InferenceClient`) and the `infer` command.

It imports no other package of this repository. `inference_client.errors` holds everything that the client raises.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_HOMES = {
    "AsyncBatch": "async_client",
    "AsyncInferenceClient": "async_client",
    "Batch": "batches",
    "InferenceClient": "client",
    "ModelRegistration": "models",
    "ModelView": "models",
    "Output": "outputs",
    "OutputFile": "outputs",
    "Result": "batches",
    "ServingSpec": "serving",
    "TaskView": "schemas",
}


def __getattr__(name: str) -> Any:
    # Imported when it is first asked for: `infer --version` needs none of it, and the HTTP client takes longest.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
