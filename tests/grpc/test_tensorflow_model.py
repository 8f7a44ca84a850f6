"""TensorFlow itself as a model: SavedModels, called by TensorFlow Serving's clients."""

import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.grpc import lines
from tests.grpc.containers import Container, container
from tests.grpc.scripts import run_script

IMAGE = "inference-server/tensorflow-model:1"
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def served(network: str) -> Iterator[Container]:
    with container(IMAGE, network, 8500) as running:
        yield running


@pytest.mark.parametrize(("script", "expected"), lines.TENSORFLOW.items())
def test_the_clients_of_tensorflow_serving_work(
    served: Container, stubs: Path, script: str, expected: list[str]
) -> None:
    assert run_script(script, stubs, served.address) == expected


def test_what_the_model_cannot_take_is_refused(served: Container, stubs: Path) -> None:
    assert run_script("tensorflow_refusals.py", stubs, served.address) == [
        "INVALID_ARGUMENT Missing ModelSpec",
        "INVALID_ARGUMENT ModelSpec has no name specified.",
        "NOT_FOUND Servable not found for request: Specific(half_plus_two, 7)",
        'FAILED_PRECONDITION Serving signature key "other" not found.',
        "INVALID_ARGUMENT input size does not match signature: 1!=1 len({z}) != len({x}). "
        "Sent extra: {z}. Missing but required: {x}.",
        "INVALID_ARGUMENT Expects arg[0] to be float32 but int32 is provided",
        "INVALID_ARGUMENT input x: the tensor's shape [1099511627776] has more than 67108864 values",
        "INVALID_ARGUMENT input x: the tensor's values do not fit its shape [1]",
        "INVALID_ARGUMENT GetModelMetadataRequest must specify at least one metadata_field",
    ]


def test_every_version_below_model_is_served_and_the_newest_is_the_default(
    network: str, stubs: Path, tmp_path: Path
) -> None:
    made = f"is-grpc-tests-{uuid.uuid4().hex[:8]}"
    subprocess.run(["docker", "create", f"--name={made}", IMAGE], check=True, capture_output=True)
    try:
        subprocess.run(["docker", "cp", f"{made}:/opt/models", tmp_path / "model"], check=True, capture_output=True)
    finally:
        subprocess.run(["docker", "rm", made], check=True, capture_output=True)
    shutil.copytree(tmp_path / "model" / "half_plus_two" / "1", tmp_path / "model" / "half_plus_two" / "12")
    with container(IMAGE, network, 8500, mounts={tmp_path / "model": "/model:ro"}) as running:
        assert run_script("tensorflow_predict.py", stubs, running.address) == ["[2.5, 3.0, 4.5]", "half_plus_two 12"]
        states = run_script("tensorflow_status.py", stubs, running.address)
        assert states[:2] == ["12 AVAILABLE", "1 AVAILABLE"]
