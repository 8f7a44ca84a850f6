"""A standalone server without Docker, on which models give their input back."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from inference_client import InferenceClient, ModelRegistration
from tests.e2e.systems import System, standalone_system

_PROGRAM = """
import os, shutil
shutil.copytree(os.environ["INPUT_DIR"], os.environ["OUTPUT_DIR"], dirs_exist_ok=True)
"""


@contextmanager
def echo_server(folder: Path, models: Sequence[str] = ("echo",)) -> Iterator[System]:
    """It runs while the block is open."""
    with standalone_system(folder, engine="process") as system:
        (folder / "model").mkdir()
        (folder / "model/echo.py").write_text(_PROGRAM)
        with InferenceClient(system.url) as client:
            for model in models:
                registration = ModelRegistration(human_readable_id=model, container_tag="process:echo.py")
                client.add_model(registration, folder / "model")
        yield system
