"""Ray Serve itself as a model: three applications that answer Ray's clients, and are replaced without a gap."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.e2e.client import door_of
from tests.e2e.grpc_door import GrpcDoor
from tests.e2e.systems import standalone_system
from tests.grpc import lines
from tests.grpc.containers import require_image
from tests.grpc.scripts import ROOT, run_script
from tests.grpc.stack import check_composition, serving_of
from tests.services import require_docker
from tests.waiting import wait_until

IMAGE = "inference-server/ray-serve:1"
SERVING = serving_of(ROOT / "examples" / "grpc" / "ray_serve")
LIMITS: dict[str, Any] = {"pids_limit": 2048, "memory_limit_bytes": 3 * 1024**3, "shared_memory_bytes": 512 * 1024**2}
"""What the example's page says."""
START_S = 240


@dataclass(frozen=True)
class Deployed:
    """A standalone server with the model ready on it."""

    door: GrpcDoor
    model: str
    target: str
    """`host:port`, in plain text."""


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    require_docker()
    require_image(IMAGE)
    with (
        standalone_system(tmp_path_factory.mktemp("ray")) as system,
        door_of(system.url, system.verify) as door,
    ):
        running = Deployed(GrpcDoor(door, system), door.add_model(IMAGE, **LIMITS), f"127.0.0.1:{system.grpc_port}")
        running.door.redeploy(running.model, wait=False, **SERVING)
        await_ready(running)
        yield running


def await_ready(deployed: Deployed, *, instead_of: str = "") -> str:
    """The uid of the only replica, once it is ready and another one than before."""

    def replicas() -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = deployed.door.show(deployed.model)["replicas"]
        return [row for row in rows if row["status"] != "ended"]

    def found() -> list[str]:
        ready = [row["uid"] for row in replicas() if row["status"] == "ready"]
        return ready if len(replicas()) == 1 and instead_of not in ready else []

    wait_until(found, lambda: f"{replicas()}\n{deployed.door.system.logs()}", within_s=START_S)
    return found()[0]


@pytest.mark.parametrize(
    ("script", "expected"),
    {
        **lines.USER_SERVICE,
        **lines.NUM_LOOKUP,
        "ray_errors.py": lines.GATEWAY["ray_errors.py"],
        "ray_health.py": ["Applications: ['app1', 'image-classifier', 'num-lookup']", "Health: success"],
    }.items(),
)
def test_rays_clients_work(deployed: Deployed, stubs: Path, script: str, expected: list[str]) -> None:
    assert run_script(script, stubs, deployed.target) == expected


def test_a_deployment_inside_calls_another_by_its_handle(deployed: Deployed, stubs: Path) -> None:
    check_composition(run_script("ray_composition.py", stubs, deployed.target))


@pytest.mark.usefixtures("stubs")
def test_a_new_version_takes_over_without_a_gap(deployed: Deployed) -> None:
    messages, services = (import_module(f"user_defined_protos_{part}") for part in ("pb2", "pb2_grpc"))
    greeted: list[str] = []
    enough = threading.Event()
    with grpc.insecure_channel(deployed.target) as channel, ThreadPoolExecutor(1) as pool:
        greet = services.UserDefinedServiceStub(channel).__call__

        def keep_calling() -> None:
            while not enough.wait(0.1):
                answer = greet(messages.UserDefinedMessage(name="foo"), metadata=[("application", "app1")], timeout=60)
                greeted.append(answer.greeting)

        calling = pool.submit(keep_calling)
        try:
            before = await_ready(deployed)
            deployed.door.door.add_model(IMAGE, human_readable_id=deployed.model, replace="true", **LIMITS)
            deployed.door.redeploy(deployed.model, wait=False, **SERVING)
            await_ready(deployed, instead_of=before)
        finally:
            enough.set()
        calling.result()
    assert set(greeted) == {"Hello foo from "}
