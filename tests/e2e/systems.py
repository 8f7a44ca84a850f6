"""A whole running server, in the two ways the scenario list runs against: standalone, and one process per service."""

import os
import random
import secrets
import socket
import ssl
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import docker
import httpx

from tests.commands import Command, start_command
from tests.e2e.processes import Process
from tests.engine_client import engine_client
from tests.services import BROKER_URL
from tests.waiting import START_S, wait_until


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
    whole: Service | None = None
    """What ends and starts all of it at once, if anything does."""

    def end(self) -> None:
        """Ask all of it to stop, and wait for that."""
        if self.whole is not None:
            self.whole.end()
            return
        for process in reversed(self.processes):
            process.end()

    def start(self) -> None:
        """Start all of it; it may not be ready yet."""
        for process in self.processes if self.whole is None else [self.whole]:
            process.start()

    def wait_ready(self) -> None:
        """Until the door answers that everything is ready."""
        wait_until(lambda: is_ready(self.url, self.verify), self.logs, within_s=START_S)

    def logs(self) -> str:
        """The end of every service's output."""
        return "\n".join(f"--- {p.name}\n{p.output()[-3000:]}" for p in self.processes)


def trust(verify: str | bool) -> ssl.SSLContext | bool:
    """What httpx is to check certificates by."""
    return ssl.create_default_context(cafile=verify) if isinstance(verify, str) else verify


def free_port() -> int:
    """A port on which nothing listens right now, and which Linux gives to nobody who asks for any port."""
    while not port_is_free(port := random.randrange(20_000, 32_000)):  # noqa: S311 - no secret
        pass
    return port


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether nothing listens on this port."""
    with socket.socket() as probe:
        probe.settimeout(60)
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
    command = ["operations", "standalone", "--data-dir", str(data_dir), "--port", str(port)]
    command += (
        ["--grpc-port", str(grpc_port), "--engine", engine] + (["--gpu-uuid", gpu_uuid] if gpu_uuid else []) + [*extra]
    )

    def launch(_name: str, environment: dict[str, str], log: Path) -> Command:
        package, *arguments = command
        with log.open("ab") as out, Path(os.devnull).open("rb") as nothing:
            return start_command(package, arguments, environment, (nothing.fileno(), out.fileno(), out.fileno()))

    process = Process("standalone", command, {}, folder / "standalone.log", launch)
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
    process: Callable[[str, list[str], Mapping[str, str], Path], Process] = Process,
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
        process(service, [sys.executable, "-m", service], environment, folder / f"{service}.log")
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


def containers(system: System, **filters: str) -> list[str]:
    """The ids of the containers of this system's consumer, in any state; `filters` are the Engine's."""
    # The low-level client: the other one inspects each container, which may be gone by then.
    client = engine_client()
    try:
        found = client.containers(all=True, filters=_of_consumer(system) | filters)
        return [container["Id"] for container in found]
    finally:
        client.close()


def leftovers(system: System) -> list[str]:
    """Containers and per-task volumes of this system's consumer that still exist."""
    client = engine_client()
    try:
        volumes = [volume["Name"] for volume in client.volumes(filters=_of_consumer(system))["Volumes"] or []]
    finally:
        client.close()
    return sorted(containers(system) + [name for name in volumes if not name.startswith("is-model-")])


def _of_consumer(system: System) -> dict[str, str]:
    return {"label": f"inference-server.consumer={system.consumer_name()}"}


def remove_leftovers(system: System) -> None:
    """Remove what a failed test left, and the model volumes, which are meant to stay."""
    client = engine_client()
    try:
        for container in client.containers(all=True, filters=_of_consumer(system)):
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
        return httpx.get(f"{url}/readyz", timeout=60, trust_env=False, verify=trust(verify)).status_code == 200
    except httpx.TransportError:
        return False
