"""The whole Compose stack with the examples deployed on it, each by its own serving.json, and the ways in to it."""

import base64
import contextlib
import json
import queue
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.e2e.client import door_of
from tests.e2e.compose import ComposeService, compose_system, service_of
from tests.e2e.grpc_door import GrpcDoor, fresh_name
from tests.e2e.health_checks import RARE_CHECKS
from tests.e2e.systems import free_port
from tests.grpc.containers import require_image
from tests.grpc.scripts import ROOT, run_script
from tests.zips import zip_folder

EXAMPLES = ROOT / "examples"
HOSTS = pytest.mark.parametrize("host", ["grpc.localhost", "localhost"], ids=["by-name", "by-path"])
SOON_S = 60
DEPLOYED = {
    "app1": ("user-service", "user_service"),
    "num-lookup": ("num-lookup", "user_service"),
    "image-preprocessor": ("image-classifier", "image_classifier"),
    "image-classifier": ("image-classifier", "image_classifier"),
    "half-plus-two": ("half-plus-two", "half_plus_two"),
    "kserve-model": ("kserve-model", "kserve_model"),
    "text-figures": ("redhare", "kernel"),
}
"""By the name that its clients know: the image, and the folder of its serving.json."""


@dataclass
class Stack:
    """One that runs, keys not required."""

    grpc: GrpcDoor
    stubs: Path
    stream_url: str
    """`host:port` in plain text, of compose.redhare.yaml."""
    key: str
    """Of the owner `radiology`; it may submit."""

    def target(self, host: str) -> str:
        """`host:port` for a client that knows nothing of TLS names: gRPC finds names below localhost by itself."""
        return self.grpc.target.replace("localhost", host)

    def run(self, script: str, host: str, environment: Mapping[str, str] | None = None) -> list[str]:
        """What a client's script prints through TLS."""
        given = {"GRPC_CERTIFICATE": str(self.grpc.system.verify), **(environment or {})}
        return run_script(script, self.stubs, self.target(host), given)

    def stream(self, environment: Mapping[str, str] | None = None) -> list[str]:
        """What the client of streams prints in plain text, which is all that it knows."""
        name, password = self.halves
        given = {"MODEL_NAME": "text-figures", "USER_NAME": name, "USER_PASSWORD": password, **(environment or {})}
        return run_script("redhare_stream.py", self.stubs, self.stream_url, given)

    @property
    def halves(self) -> tuple[str, str]:
        """The key as a name and a password."""
        _, name, password = self.key.split("_")
        return name, password

    @property
    def userpasswd(self) -> str:
        """Both of them as `base64` writes them: in lines, with an end."""
        return base64.encodebytes(":".join(self.halves).encode()).decode()

    def deploy(self, name: str, image: str, serving: Mapping[str, Any], archive: bytes | None = None) -> None:
        """A model of this name, ready."""
        require_image(f"inference-server/{image}:1")
        self.grpc.door.add_model(f"inference-server/{image}:1", model_zip=archive, human_readable_id=name)
        self.grpc.redeploy(name, **serving)

    @contextlib.contextmanager
    def deployed(self, image: str, serving: Mapping[str, Any], archive: bytes | None = None) -> Iterator[str]:
        """One of a name that is given to the block, for that block only."""
        name = fresh_name()
        self.deploy(name, image, serving, archive)
        self.grpc.wait_routed(*DEPLOYED, name)
        try:
            yield name
        finally:
            self.grpc.undeploy(name)
            self.grpc.wait_routed(*DEPLOYED)

    @contextlib.contextmanager
    def replaced(
        self, replaced: str, image: str, serving: Mapping[str, Any], archive: bytes | None = None
    ) -> Iterator[None]:
        """For a block another deployment has the model names of this one."""
        before = self.grpc.show(replaced)["serving"]
        name = fresh_name()
        self.grpc.undeploy(replaced)
        try:
            self.deploy(name, image, serving, archive)
            self.grpc.wait_routed(*{*DEPLOYED, name} - {replaced})
            yield
        finally:
            self.grpc.undeploy(name)
            self.grpc.redeploy(replaced, **before)
            self.grpc.wait_routed(*DEPLOYED)

    @property
    def service_token(self) -> str:
        """What signs tokens."""
        return (Path(str(self.grpc.system.verify)).parents[2] / "secrets" / "service_token").read_text().strip()

    def service(self, name: str) -> ComposeService:
        """One of the stack's containers."""
        return service_of(self.grpc.system, name)

    def ran_in(self, uid: str) -> str:
        """The replica that ran a task; empty where it ran in a container of its own."""
        query = f"SELECT a.replica_uid FROM attempts a JOIN tasks t ON t.id = a.task_id WHERE t.uid = '{uid}'"  # noqa: S608
        return self.service("postgres").execute("psql", "--username=inference", "--tuples-only", "-Ac", query)


@contextlib.contextmanager
def bare_compose_stack(folder: Path) -> Iterator[GrpcDoor]:
    """A stack with room for every example, on which nothing is deployed."""
    port = free_port()
    extra = {
        "COMPOSE_FILE": f"docker-compose.yaml:compose.redhare.yaml:{RARE_CHECKS}",
        "REDHARE_PORT": str(port),
        "GRPC_STREAM_URL": f"localhost:{port}",
        "GRPC_WORKERS": "2",
        "REPLICA_SLOTS": "16",
    }
    with compose_system(folder, extra=extra) as system, door_of(system.url, system.verify) as door:
        yield GrpcDoor(door, system)


def deploy_examples(grpc: GrpcDoor, stubs: Path) -> Stack:
    """Every example of `DEPLOYED`, ready on this stack."""
    for image, _ in DEPLOYED.values():
        require_image(f"inference-server/{image}:1")
    stream_url = service_of(grpc.system, "grpc-gateway").execute("printenv", "GRPC_STREAM_URL")
    stack = Stack(grpc, stubs, stream_url, "")
    create = ("inference-server", "keys", "create", "--owner", "radiology", "--scope", "submit")
    stack.key = stack.service("private-api").execute(*create).split()[-1]
    for name, (image, folder_name) in DEPLOYED.items():
        archive = zip_folder(EXAMPLES / "grpc" / folder_name) if image == "redhare" else None
        stack.deploy(name, image, serving_of(EXAMPLES / "grpc" / folder_name), archive)
    stack.grpc.wait_routed(*DEPLOYED)
    return stack


def serving_of(folder: Path) -> dict[str, Any]:
    """What an operator posts for the example in this folder."""
    serving: dict[str, Any] = json.loads((folder / "serving.json").read_text())
    return serving


def check_composition(printed: list[str]) -> None:
    """What ray_composition.py prints of a circle."""
    status, classes, _ = printed
    assert status == "status code: StatusCode.OK"
    assert classes.startswith("Classes: ['circle', ")


def follow(watch: Any, told: queue.Queue[int]) -> threading.Thread:
    """Put every status that a watch of grpc.health.v1 tells into the queue, until it ends."""

    def read() -> None:
        with contextlib.suppress(grpc.RpcError):
            for answer in watch:
                told.put(answer.status)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


def told_until(told: queue.Queue[int], status: int) -> None:
    """Take what a followed watch tells up to this status; fails if it does not come."""
    seen = []
    while status not in seen:
        try:
            seen.append(told.get(timeout=SOON_S))
        except queue.Empty:
            pytest.fail(f"the watch told {seen}, and no {status} within {SOON_S} s")
