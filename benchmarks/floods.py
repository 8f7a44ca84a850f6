"""What each service of a Compose stack takes of the memory while it is flooded by somebody without a key.

    .venv/bin/python -m benchmarks.floods [--only NAME]

For each flood: the resident memory of every service before it, at most during it, and after it, and the ratio of the
first two. Goal: no service takes more than 1.5 times what it had, and the server answers polls all the while.
"""

import argparse
import json
import re
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.e2e.compose import Compose, compose_project

MIB = 1024**2
GOAL = 1.5
SERVICES = ("traefik", "public-api", "grpc-gateway", "private-api")
_UNLIMITED = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))
_PATIENCE_S = 120
_SLOW_S = 75
"""Longer than a door waits for a body that brings nothing."""


@dataclass(frozen=True)
class Target:
    """A stack to flood."""

    compose: Compose
    url: str
    certificate: Path

    @property
    def port(self) -> int:
        """Of the door."""
        return urlsplit(self.url).port or 443

    def connect(self) -> ssl.SSLSocket:
        """A TLS connection that has said nothing yet."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        return context.wrap_socket(socket.create_connection(("localhost", self.port)), server_hostname="localhost")

    @contextmanager
    def channel(self) -> Iterator[grpc.Channel]:
        """A gRPC channel of its own to the domain itself."""
        credentials = grpc.ssl_channel_credentials(self.certificate.read_bytes())
        options = (*_UNLIMITED, ("grpc.use_local_subchannel_pool", 1))
        with grpc.secure_channel(f"localhost:{self.port}", credentials, options=options) as channel:
            yield channel


@dataclass
class Watch:
    """Looks at the memory of every service until it is stopped."""

    target: Target
    most: dict[str, int] = field(default_factory=dict)
    slowest_s: float = 0.0
    """The longest that a poll of the door took."""
    _stopped: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look while the block runs."""
        thread = threading.Thread(target=self._look)
        thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            thread.join()

    def _look(self) -> None:
        while not self._stopped.is_set():
            for name, size in resident(self.target.compose).items():
                self.most[name] = max(self.most.get(name, 0), size)
            began_at = time.monotonic()
            httpx.get(f"{self.target.url}/healthz", verify=str(self.target.certificate), timeout=_PATIENCE_S)
            self.slowest_s = max(self.slowest_s, time.monotonic() - began_at)


def resident(compose: Compose) -> dict[str, int]:
    """The resident bytes of all processes of each service."""
    sizes = {}
    for service in SERVICES:
        command = ["docker", "top", compose.container(service), "-eo", "pid,rss"]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        sizes[service] = sum(int(number) * 1024 for number in re.findall(r"^\d+ +(\d+)$", printed, re.MULTILINE))
    return sizes


def json_body(target: Target) -> None:
    """One JSON body of 700 MB."""
    pieces = (bytes(MIB) for _ in range(700))
    try:
        httpx.post(
            f"{target.url}/api/keys/",
            content=pieces,
            headers={"Content-Type": "application/json", "Content-Length": str(700 * MIB)},
            verify=str(target.certificate),
            timeout=_PATIENCE_S,
        )
    except httpx.TransportError as error:
        print(f"  cut: {error!r}")


def grpc_messages(target: Target) -> None:
    """Three messages of 400 MB at once."""

    def send(_number: int) -> str:
        with target.channel() as channel:
            try:
                channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(bytes(400 * MIB), timeout=_PATIENCE_S)
            except grpc.RpcError as error:
                return str(error.code())
        return "answered"

    with ThreadPoolExecutor(3) as pool:
        print(f"  {', '.join(pool.map(send, range(3)))}")


def health_watches(target: Target) -> None:
    """4096 watches on the gateway's health, over 41 connections."""
    opened = refused = 0
    with ExitStack() as stack:
        for _ in range(41):
            stub = health_pb2_grpc.HealthStub(stack.enter_context(target.channel()))
            streams = [stub.Watch(health_pb2.HealthCheckRequest(), timeout=_PATIENCE_S) for _ in range(100)]
            for stream in streams:
                try:
                    next(stream)
                    opened += 1
                except grpc.RpcError:
                    refused += 1
    print(f"  {opened} were open, {refused} refused")


def half_heads(target: Target) -> None:
    """A thousand connections, each with half the head of a request."""
    with ExitStack() as stack:
        for _ in range(1000):
            connection = stack.enter_context(target.connect())
            connection.sendall(b"POST /api/tasks/ HTTP/1.1\r\nHost: loc")
        time.sleep(3)


def slow_bodies(target: Target) -> None:
    """500 uploads of which a byte arrives now and then."""
    head = b"POST /api/tasks/?human_readable_id=x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n"
    with ExitStack() as stack:
        connections = [stack.enter_context(target.connect()) for _ in range(500)]
        for connection in connections:
            # Traefik passes a head on with the first 4 KB of the body.
            connection.sendall(head + b"Content-Type: application/zip\r\n\r\n" + bytes(8192))
        ends_at = time.monotonic() + _SLOW_S
        answers = [_answer(connection, ends_at) for connection in connections]
    print(f"  {', '.join(f'{answers.count(each)} x {each}' for each in sorted(set(answers)))}")


def _answer(connection: ssl.SSLSocket, ends_at: float) -> str:
    """The error that arrives until then, by name."""
    connection.settimeout(max(0.01, ends_at - time.monotonic()))
    try:
        return str(json.loads(connection.recv(65536).partition(b"\r\n\r\n")[2])["error"])
    except TimeoutError:
        return f"no answer within {_SLOW_S} s"


FLOODS: tuple[Callable[[Target], None], ...] = (json_body, grpc_messages, health_watches, half_heads, slow_bodies)


def main() -> None:
    """Flood a stack that requires keys, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[flood.__name__ for flood in FLOODS])
    only = parser.parse_args().only
    with tempfile.TemporaryDirectory() as folder:
        extra = {"REQUIRE_API_KEY": "1", "ALLOW_PUBLIC_POST_MODEL": ""}
        with compose_project(Path(folder), extra) as (compose, url):
            compose.run("up", "--detach", "--wait")
            target = Target(compose, url, Path(folder) / "traefik/certs/server.crt")
            for flood in FLOODS:
                if only in (None, flood.__name__):
                    measure(target, flood)


def measure(target: Target, flood: Callable[[Target], None]) -> None:
    """Flood once, and print a line for each service."""
    print(f"{flood.__name__}: {(flood.__doc__ or '').strip()}")
    before, watch = resident(target.compose), Watch(target)
    with watch.watching():
        flood(target)
    time.sleep(2)
    after = resident(target.compose)
    for name in SERVICES:
        was, most, is_now = (sizes[name] / MIB for sizes in (before, watch.most, after))
        print(f"  {name:13} {was:6.0f} MiB, at most {most:6.0f}, then {is_now:6.0f}   ratio {most / was:.2f}")
    print(f"  the slowest poll took {watch.slowest_s:.2f} s")


if __name__ == "__main__":
    main()
