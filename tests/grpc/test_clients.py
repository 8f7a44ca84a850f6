"""Public clients, as the documentation shows them, against the examples' containers."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.tokens import Claims, sign_token
from tests.grpc import lines
from tests.grpc.containers import Container, container
from tests.grpc.scripts import ROOT, run_script

KEY = bytes(range(32))


@pytest.fixture(scope="module")
def user_service(network: str) -> Iterator[Container]:
    with container("inference-server/user-service:1", network, 9000) as running:
        yield running


@pytest.fixture(scope="module")
def half_plus_two(network: str) -> Iterator[Container]:
    with container("inference-server/half-plus-two:1", network, 8500) as running:
        yield running


@pytest.fixture(scope="module", params=["kserve-model", "triton"])
def kserve(request: pytest.FixtureRequest, network: str) -> Iterator[Container]:
    """Our server of the protocol, and Triton itself."""
    models = {ROOT / "examples" / "grpc" / "triton" / "models": "/model:ro"} if request.param == "triton" else {}
    with container(f"inference-server/{request.param}:1", network, 8001, mounts=models) as running:
        yield running


@pytest.mark.parametrize(("script", "expected"), lines.USER_SERVICE.items())
def test_the_clients_of_the_user_defined_service_work(
    user_service: Container, stubs: Path, script: str, expected: list[str]
) -> None:
    assert run_script(script, stubs, user_service.address) == expected


def test_a_service_chooses_its_own_statuses_details_and_trailers(network: str, stubs: Path) -> None:
    with container("inference-server/num-lookup:1", network, 9000) as running:
        assert run_script("ray_context.py", stubs, running.address) == lines.NUM_LOOKUP["ray_context.py"]


def test_the_classifier_has_another_deployment_prepare_its_images(network: str, stubs: Path) -> None:
    image = "inference-server/image-classifier:1"
    nowhere = {"GRPC_GATEWAY": "127.0.0.1:1"}
    with container(image, network, 9000, environment=nowhere) as preprocessor:
        gateway = {"GRPC_GATEWAY": preprocessor.address, "GATEWAY_TOKEN": "token"}
        with container(image, network, 9000, environment=gateway) as classifier:
            status, classes, _ = run_script("ray_composition.py", stubs, classifier.address)
    assert status == "status code: StatusCode.OK"
    assert classes.startswith("Classes: ['circle', ")


@pytest.mark.parametrize(("script", "expected"), lines.TENSORFLOW.items())
def test_the_clients_of_tensorflow_serving_work(
    half_plus_two: Container, stubs: Path, script: str, expected: list[str]
) -> None:
    assert run_script(script, stubs, half_plus_two.address) == expected


@pytest.mark.parametrize(("script", "expected"), lines.KSERVE.items())
def test_tritons_client_works(kserve: Container, stubs: Path, script: str, expected: list[str]) -> None:
    assert run_script(script, stubs, kserve.address) == expected


def test_the_header_for_errors_ends_a_stream_with_its_status(network: str, stubs: Path) -> None:
    # The Triton of the example is older than this header.
    with container("inference-server/kserve-model:1", network, 8001) as running:
        assert run_script("kserve_strict.py", stubs, running.address) == lines.KSERVE_STRICT["kserve_strict.py"]


def test_a_client_compiled_from_stream_proto_streams_to_a_kernel(network: str, stubs: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(ROOT / "examples" / "grpc" / "kernel", model)
    given = {"STREAM_TOKEN_KEY": KEY.hex(), "DEPLOYMENT": "text-figures", "REDHARE_MODEL_NAME": "text-figures"}
    mounts = {model: "/model:ro"}
    with container("inference-server/redhare:1", network, 9010, environment=given, mounts=mounts) as running:
        token = {"STREAM_TOKEN": sign_token(KEY, Claims("text-figures", None, None))}
        assert run_script("redhare_stream.py", stubs, running.address, token) == lines.REDHARE["redhare_stream.py"]
        assert running.stop() == 0
        assert "shut down" in running.logs()
