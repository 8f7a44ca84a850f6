"""A whole running server, in the two ways the scenario list runs against: standalone, and one process per service."""

import os
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import docker
import httpx

from tests.services import BROKER_URL

START_S = 60


class Service(Protocol):
    """A part of a running server that a test can end and start."""

    name: str

    def start(self) -> None:
        """Start it; it may not be ready yet."""

    def end(self) -> None:
        """Ask it to stop and wait for that."""

    def kill(self) -> None:
        """End it as a power cut would."""

    def output(self) -> str:
        """What it wrote."""


class Process:
    """One service as a process of its own; its output goes to a file that a failing test shows."""

    def __init__(self, name: str, command: list[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self._command = command
        self._environment = {**os.environ, **environment, "PYTHONUNBUFFERED": "1"}
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it may not be ready yet."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None, f"{self.name} is not running"
        return self._process.pid

    def end(self, number: int = signal.SIGTERM) -> None:
        """Send a signal and wait for the end."""
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(40)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"{self.name} did not stop:\n{self.log.read_text()[-4000:]}") from None
        finally:
            self._process = None

    def kill(self) -> None:
        """End it as a power cut would."""
        self.end(signal.SIGKILL)

    def wait(self, seconds: float) -> int:
        """Its exit code, once it ended by itself."""
        assert self._process is not None, f"{self.name} is not running"
        return self._process.wait(seconds)

    def output(self) -> str:
        """What it wrote."""
        return self.log.read_text() if self.log.exists() else ""


@dataclass
class System:
    """A running server and the handles to break it."""

    name: str
    url: str
    consumer: Service
    """What runs containers; in standalone the whole server."""
    consumer_name: Callable[[], str]
    work_dir: Path
    data_dir: Path
    gpu_uuid: str | None = None
    processes: Sequence[Service] = field(default_factory=list)
    """In the order of starting."""
    grpc_port: int | None = None
    """Of the gRPC door in plain text, where it has one of its own."""
    verify: str | bool = True
    """The certificate that clients must trust, where there is TLS."""

    def wait_ready(self) -> None:
        """Until the door answers that everything is ready."""
        wait_for(lambda: is_ready(self.url, self.verify), START_S, self.logs)

    def logs(self) -> str:
        """The end of every service's output."""
        return "\n".join(f"--- {p.name}\n{p.output()[-3000:]}" for p in self.processes)


def wait_for(condition: Callable[[], object], seconds: float, describe: Callable[[], str] = str) -> None:
    """Poll until the condition holds; fails with a description after so many seconds."""
    ends_at = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends_at:
            raise AssertionError(f"not within {seconds} s\n{describe()}")
        time.sleep(0.05)


def trust(verify: str | bool) -> ssl.SSLContext | bool:
    """What httpx is to check certificates by."""
    return ssl.create_default_context(cafile=verify) if isinstance(verify, str) else verify


def free_port() -> int:
    """A port nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether nobody listens on this port."""
    with socket.socket() as probe:
        probe.settimeout(5)
        return probe.connect_ex((host, port)) != 0


@contextmanager
def standalone_system(
    folder: Path,
    *,
    engine: str = "docker",
    gpu_uuid: str | None = None,
    grpc_port: int | None = None,
    extra: Sequence[str] = (),
) -> Iterator[System]:
    """`inference-server standalone` as a process, with `extra` options."""
    port, grpc_port = free_port(), grpc_port or free_port()
    data_dir = folder / "data"
    command = [sys.executable, "-m", "operations", "standalone", "--data-dir", str(data_dir), "--port", str(port)]
    command += (
        ["--grpc-port", str(grpc_port), "--engine", engine] + (["--gpu-uuid", gpu_uuid] if gpu_uuid else []) + [*extra]
    )
    process = Process("standalone", command, {}, folder / "standalone.log")
    system = System(
        name="standalone",
        url=f"http://127.0.0.1:{port}",
        consumer=process,
        consumer_name=lambda: (data_dir / "consumer-name").read_text().strip(),
        work_dir=data_dir / "work",
        data_dir=data_dir,
        gpu_uuid=gpu_uuid,
        grpc_port=grpc_port,
        processes=[process],
    )
    with _running(system):
        yield system


@contextmanager
def services_system(
    folder: Path,
    database_url: str,
    *,
    gpu_uuid: str | None = None,
    broker_port: int | None = None,
    extra: Mapping[str, str] | None = None,
) -> Iterator[System]:
    """Private API, public API and one consumer, each a process, over PostgreSQL and RabbitMQ."""
    private_port, public_port = free_port(), free_port()
    name = f"test-{secrets.token_hex(4)}"
    shared = {"SERVICE_TOKEN": secrets.token_hex(16), **_rabbit(broker_port)}
    private_url = f"http://127.0.0.1:{private_port}"
    environments = {
        "private_api": {
            **shared,
            "DATABASE_URL": database_url,
            "DATA_DIR": str(folder / "data"),
            "PRIVATE_API_HOST": "127.0.0.1",
            "PRIVATE_API_PORT": str(private_port),
            **(extra or {}),
        },
        "public_api": {
            **shared,
            "PRIVATE_API_URL": private_url,
            "PUBLIC_API_HOST": "127.0.0.1",
            "PUBLIC_API_PORT": str(public_port),
            "ALLOW_PUBLIC_POST_MODEL": "1",
        },
        "job_consumer": {
            **shared,
            "PRIVATE_API_URL": private_url,
            "CONSUMER_NAME": name,
            "WORK_DIR": str(folder / "work"),
            "GPU_UUID": gpu_uuid or "",
            "MEMORY_LIMIT_BYTES": str(4 * 1024**3),
        },
    }
    processes = [
        Process(service, [sys.executable, "-m", service], environment, folder / f"{service}.log")
        for service, environment in environments.items()
    ]
    system = System(
        name="services",
        url=f"http://127.0.0.1:{public_port}",
        consumer=processes[-1],
        consumer_name=lambda: name,
        work_dir=folder / "work",
        data_dir=folder / "data",
        gpu_uuid=gpu_uuid,
        processes=processes,
    )
    with _running(system):
        yield system


@contextmanager
def _running(system: System) -> Iterator[None]:
    try:
        for process in system.processes:
            process.start()
        system.wait_ready()
        yield
    finally:
        for process in reversed(system.processes):
            process.end()
        if system.work_dir.exists():
            remove_leftovers(system)


def leftovers(system: System) -> list[str]:
    """Containers and per-task volumes of this system's consumer that still exist."""
    # The low-level client: the other one inspects each container, which may be gone by then.
    client = docker.APIClient()
    try:
        filters = {"label": f"inference-server.consumer={system.consumer_name()}"}
        containers = [container["Id"] for container in client.containers(all=True, filters=filters)]
        volumes = [volume["Name"] for volume in client.volumes(filters=filters)["Volumes"] or []]
        return sorted(containers + [name for name in volumes if not name.startswith("is-model-")])
    finally:
        client.close()


def remove_leftovers(system: System) -> None:
    """Remove what a failed test left, and the model volumes, which are meant to stay."""
    client = docker.APIClient()
    try:
        filters = {"label": f"inference-server.consumer={system.consumer_name()}"}
        for container in client.containers(all=True, filters=filters):
            client.remove_container(container["Id"], force=True)
        for volume in client.volumes()["Volumes"] or []:
            if str(system.work_dir) in str(volume.get("Options") or {}):
                client.remove_volume(volume["Name"], force=True)
    except (FileNotFoundError, docker.errors.DockerException):
        return
    finally:
        client.close()


def _rabbit(port: int | None) -> dict[str, str]:
    parts = urlsplit(BROKER_URL)
    return {
        "RABBIT_HOSTNAME": parts.hostname or "127.0.0.1",
        "RABBIT_PORT": str(port or parts.port or 5672),
        "RABBIT_USER": unquote(parts.username or "guest"),
        "RABBIT_PASSWORD": unquote(parts.password or "guest"),
        "RABBIT_VHOST": unquote(parts.path[1:]) or "/",
    }


def is_ready(url: str, verify: str | bool) -> bool:
    """Whether the door answers that everything is ready."""
    try:
        return httpx.get(f"{url}/readyz", timeout=5, trust_env=False, verify=trust(verify)).status_code == 200
    except httpx.TransportError:
        return False
