"""The examples' containers as a consumer runs them: hardened, on an internal network, spoken to in plain text."""

import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.services import docker_problem, missing
from tests.waiting import PATIENCE_S, START_S, wait_until

HARDENED = [
    "--user=65532:65532",
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--tmpfs=/tmp:rw,exec,nosuid,nodev,mode=1777,size=256m,uid=65532,gid=65532",
    "--env=HOME=/tmp",
    "--memory=2g",
    "--memory-swap=2g",
    "--pids-limit=512",
    "--shm-size=1g",
    "--init",
]


@dataclass(frozen=True)
class Container:
    """One that runs."""

    name: str
    address: str
    """`host:port`."""

    def logs(self) -> str:
        """What it printed."""
        done = subprocess.run(["docker", "logs", self.name], capture_output=True, text=True, check=True)
        return done.stdout + done.stderr

    def stop(self) -> int:
        """TERM; its exit code. Docker kills what has not ended after the time that a busy machine may take."""
        self.begin_to_stop().wait()
        return self.wait()

    def begin_to_stop(self) -> subprocess.Popen[bytes]:
        """TERM, without waiting for the end."""
        command = ["docker", "stop", f"--time={PATIENCE_S:.0f}", self.name]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def wait(self) -> int:
        """Its exit code, once it has ended by itself."""
        done = subprocess.run(
            ["docker", "wait", self.name], capture_output=True, text=True, check=True, timeout=PATIENCE_S
        )
        return int(done.stdout)


@contextmanager
def internal_network() -> Iterator[str]:
    """A network that leads nowhere else."""
    if problem := docker_problem("python:3.13-slim"):
        missing(problem)
    name = f"is-grpc-tests-{uuid.uuid4().hex[:8]}"
    subprocess.run(["docker", "network", "create", "--internal", name], capture_output=True, check=True)
    try:
        yield name
    finally:
        subprocess.run(["docker", "network", "rm", name], capture_output=True, check=False)


def require_image(image: str) -> None:
    """One that `make grpc-images` builds."""
    if problem := docker_problem(image):
        missing(f"{problem}; run: make grpc-images")


@contextmanager
def container(
    image: str,
    network: str,
    port: int,
    *,
    environment: Mapping[str, str] | None = None,
    mounts: Mapping[Path, str] | None = None,
    ready: bool = True,
) -> Iterator[Container]:
    """Run `image`, ready to be called. A mount's target may end in `:ro`."""
    require_image(image)
    name = f"is-grpc-tests-{uuid.uuid4().hex[:8]}"
    options = [f"--env={key}={value}" for key, value in (environment or {}).items()]
    options += [f"--volume={source}:{target}" for source, target in (mounts or {}).items()]
    command = ["docker", "run", "--detach", f"--name={name}", f"--network={network}", *HARDENED, *options, image]
    subprocess.run(command, capture_output=True, check=True)
    try:
        inspect = ["docker", "inspect", "--format={{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name]
        host = subprocess.run(inspect, capture_output=True, text=True, check=True).stdout.strip()
        running = Container(name, f"{host}:{port}")
        if ready:
            _await_health(running)
        yield running
    finally:
        subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=False)


def _await_health(running: Container) -> None:
    with grpc.insecure_channel(running.address, options=[("grpc.max_reconnect_backoff_ms", 200)]) as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        def is_serving() -> bool:
            try:
                reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=60, wait_for_ready=True)
            except grpc.RpcError:
                return False
            return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)

        wait_until(is_serving, running.logs, within_s=START_S)
