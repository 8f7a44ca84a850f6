"""Public clients, as the documentation shows them, through the gateway to the examples' containers."""

import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from contract.deployments import Route
from contract.tokens import Claims, replica_key, sign_token, stream_key
from tests.grpc import lines
from tests.grpc.containers import container
from tests.grpc.scripts import ROOT, run_script
from tests.integration.contract_harness import KEY, OWNER, run_contract_gateway
from tests.integration.grpc_harness import TOKEN, route

EXAMPLES = ROOT / "examples" / "grpc"
CLASSIFIER = "c" * 64
"""The uid of the classifier's replica, for which its token is made before it has an address."""
COMMON = lines.USER_SERVICE | lines.NUM_LOOKUP | lines.TENSORFLOW | lines.REDHARE | lines.GATEWAY


class Examples:
    """The examples' containers, each with its route."""

    def __init__(self, stack: ExitStack, network: str, kernel: Path) -> None:
        self._stack = stack
        self._network = network
        self._kernel = kernel

    def routes(self, gateway_address: str) -> list[Route]:
        """Run all of them; they reach the gateway at this address."""
        nowhere = {"GRPC_GATEWAY": "127.0.0.1:1"}
        inner = {
            "GRPC_GATEWAY": gateway_address,
            "GATEWAY_TOKEN": sign_token(replica_key(TOKEN), Claims(CLASSIFIER, OWNER, None)),
        }
        streams = {"STREAM_TOKEN_KEY": stream_key(TOKEN, "text-figures").hex(), "DEPLOYMENT": "text-figures"}
        classifier = route("image-classifier", self._run("image-classifier", 9000, inner))
        backends = [classifier.backends[0].model_copy(update={"uid": CLASSIFIER})]
        return [
            route("app1", self._run("user-service", 9000)),
            route("num-lookup", self._run("num-lookup", 9000)),
            route("image-preprocessor", self._run("image-classifier", 9000, nowhere)),
            classifier.model_copy(update={"backends": backends}),
            route(
                "half-plus-two",
                self._run("half-plus-two", 8500),
                protocol="tensorflow",
                prefix="service1",
                model_names=["half_plus_two", "model"],
            ),
            route("text-figures", self._run("redhare", 9010, streams, {self._kernel: "/model:ro"}), protocol="redhare"),
        ]

    def kserve(self, image: str) -> Route:
        """Our server of the protocol, or Triton itself."""
        mounts = {EXAMPLES / "triton" / "models": "/model:ro"} if image == "triton" else {}
        names = ["add_sub", "identity", "repeat"]
        return route("kserve-model", self._run(image, 8001, {}, mounts), protocol="kserve", model_names=names)

    def _run(
        self,
        image: str,
        port: int,
        environment: Mapping[str, str] | None = None,
        mounts: Mapping[Path, str] | None = None,
    ) -> str:
        given = container(f"inference-server/{image}:1", self._network, port, environment=environment, mounts=mounts)
        return self._stack.enter_context(given).address


@pytest.fixture(scope="module", params=["kserve-model", "triton"])
def gateway(request: pytest.FixtureRequest, network: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one that asks for keys, in front of every example."""
    kernel = tmp_path_factory.mktemp("kernel") / "model"
    shutil.copytree(EXAMPLES / "kernel", kernel)
    host = host_on(network)
    with socket.socket() as free:
        free.bind((host, 0))
        port = free.getsockname()[1]
    options = {"host": host, "port": port, "stream_url": f"{host}:{port}", "requires_key": True}
    with ExitStack() as stack:
        running = stack.enter_context(run_contract_gateway(**options))
        examples = Examples(stack, network, kernel)
        running.give(*examples.routes(f"{host}:{port}"), examples.kserve(request.param))
        yield f"{host}:{port}"


def host_on(network: str) -> str:
    """This machine's own address on a network of Docker's."""
    inspect = ["docker", "network", "inspect", "--format={{range .IPAM.Config}}{{.Gateway}}{{end}}", network]
    return subprocess.run(inspect, capture_output=True, text=True, check=True).stdout.strip()


def run(gateway: str, script: str, stubs: Path) -> list[str]:
    given = {"GRPC_API_KEY": KEY, "MODEL_NAME": "text-figures"}
    return run_script(script, stubs, gateway, given)


@pytest.mark.parametrize(("script", "expected"), lines.KSERVE.items())
def test_tritons_client_works(gateway: str, stubs: Path, script: str, expected: list[str]) -> None:
    assert run(gateway, script, stubs) == expected


@pytest.mark.parametrize("gateway", ["kserve-model"], indirect=True)
@pytest.mark.parametrize(("script", "expected"), (COMMON | lines.KSERVE_STRICT).items())
def test_every_other_client_works(gateway: str, stubs: Path, script: str, expected: list[str]) -> None:
    assert run(gateway, script, stubs) == expected


@pytest.mark.parametrize("gateway", ["kserve-model"], indirect=True)
def test_a_deployment_calls_another_with_the_token_of_its_replica(gateway: str, stubs: Path) -> None:
    status, classes, _ = run(gateway, "ray_composition.py", stubs)
    assert status == "status code: StatusCode.OK"
    assert classes.startswith("Classes: ['circle', ")
