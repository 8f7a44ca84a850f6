"""What users install: the Python client (`InferenceClient`) and the `infer` command."""

from contract.schemas import ModelRegistration, ModelView, TaskView
from inference_client.client import InferenceClient

__all__ = ["InferenceClient", "ModelRegistration", "ModelView", "TaskView"]
