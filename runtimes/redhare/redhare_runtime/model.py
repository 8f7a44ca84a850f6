"""What the model's zip says about itself: which file is the kernel, and what the kernel learns at its start."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class ModelFault(Exception):
    """The model's zip cannot be served; the text says what to change."""


@dataclass(frozen=True)
class KernelContext:
    """What `on_kernel_start` receives."""

    instance_id: str
    model_description: str

    def get_instance_id(self) -> str:
        """The name of this replica."""
        return self.instance_id

    def get_id(self) -> str:
        """The same, under its older name."""
        return self.instance_id

    def get_model_description(self) -> str:
        """The zip's `model.json` as JSON, with `model_path`, `weight_path` and `attributes` filled in."""
        return self.model_description


@dataclass(frozen=True)
class Model:
    """A model's folder and its description."""

    folder: Path
    description: dict[str, Any]

    @property
    def kernel_file(self) -> Path:
        """The program to run: `kernel_path` of the description, else `kernel.py`."""
        return self.folder / self.description["kernel_path"]

    @property
    def name(self) -> str:
        """The name under which it is served."""
        return str(self.description["name"])

    @property
    def version(self) -> str:
        """Its version as the server counts them, or what the description says."""
        return str(self.description["version"])

    @property
    def max_batch(self) -> int:
        """How many waiting requests one call of `on_task_invoke` may take at most."""
        return int(self.description["max_batch"])

    def context(self) -> KernelContext:
        """What the kernel learns at its start."""
        return KernelContext(os.environ.get("REPLICA_UID") or os.uname().nodename, json.dumps(self.description))


def read_model() -> Model:
    """The model at REDHARE_MODEL_PATH. Raises `ModelFault`."""
    folder = Path(os.environ.get("REDHARE_MODEL_PATH") or "/model")
    description: dict[str, Any] = {
        "name": os.environ.get("REDHARE_MODEL_NAME", ""),
        "version": os.environ.get("REDHARE_MODEL_VERSION") or "1",
        "kernel_path": "kernel.py",
        "weight_path": "",
        "attributes": [],
        "max_batch": 32,
    }
    file = folder / "model.json"
    if file.exists():
        try:
            given = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ModelFault(f"{file} is not JSON: {error}") from error
        if not isinstance(given, dict):
            raise ModelFault(f"{file} must be a JSON object, as in the readme")
        description |= given
    description["model_path"] = str(folder)
    if not isinstance(description["max_batch"], int) or description["max_batch"] < 1:
        raise ModelFault(f"max_batch in {file} must be a whole number, 1 or more")
    model = Model(folder, description)
    if not model.kernel_file.is_file():
        raise ModelFault(
            f"{model.kernel_file} is missing: put kernel.py at the top of the model's zip, or name it as kernel_path"
            " in model.json"
        )
    return model
