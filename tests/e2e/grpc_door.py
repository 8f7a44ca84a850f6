"""The gRPC door as a stranger meets it: channels through Traefik's TLS, and deployments made over HTTP."""

import contextlib
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import grpc

from tests.e2e.client import DoorClient
from tests.waiting import wait_until

Metadata = tuple[tuple[str, str | bytes], ...]

NAME = "grpc.localhost"
"""By this name TLS ends in Traefik and the rest passes as it is; by the domain itself Traefik reads the HTTP/2."""


class Stack(Protocol):
    """What runs behind the door."""

    @property
    def verify(self) -> str | bool:
        """The certificate to trust."""

    def logs(self) -> str:
        """What a failing test shows."""


@dataclass
class GrpcDoor:
    """One stack's gRPC door, and the HTTP door beside it."""

    door: DoorClient
    system: Stack

    @property
    def target(self) -> str:
        """`host:port`."""
        parts = urlsplit(self.door.url)
        return f"{parts.hostname}:{parts.port or 443}"

    @contextlib.contextmanager
    def channel(self, name: str | None = NAME, options: Mapping[str, Any] | None = None) -> Iterator[grpc.Channel]:
        """A channel to the door by this name; with None by the domain itself."""
        given = dict(options or {}) | ({"grpc.ssl_target_name_override": name} if name else {})
        certificate = Path(str(self.system.verify)).read_bytes()
        with grpc.secure_channel(
            self.target, grpc.ssl_channel_credentials(certificate), tuple(given.items())
        ) as channel:
            yield channel

    def deploy(self, image: str, *, model_zip: bytes | None = None, wait: bool = True, **serving: Any) -> str:
        """Register and deploy a new model of this image; returns its id, once it is ready unless `wait` is False."""
        gpu = {"use_gpu": "true"} if serving.pop("use_gpu", False) else {}
        model = self.door.add_model(image, model_zip=model_zip, **gpu)
        self.redeploy(model, wait=wait, **serving)
        return model

    def redeploy(self, model: str, *, wait: bool = True, **serving: Any) -> None:
        """Post the serving description."""
        body = {"port": 9000, "replicas_min": 1, **serving}
        answer = self.door.http.post(f"/api/models/{model}/deployment", json=body)
        assert answer.status_code == 200, answer.text
        if wait and body["replicas_min"]:
            self.wait_ready(model, body["replicas_min"])

    def show(self, model: str) -> dict[str, Any]:
        """The deployment as JSON."""
        answer = self.door.http.get(f"/api/models/{model}/deployment")
        assert answer.status_code == 200, answer.text
        view: dict[str, Any] = answer.json()
        return view

    def replicas(self, model: str, status: str = "ready") -> list[dict[str, Any]]:
        """Its replicas in this status."""
        return [row for row in self.show(model)["replicas"] if row["status"] == status]

    def wait_ready(self, model: str, count: int = 1) -> None:
        """Wait until this many replicas are ready."""
        wait_until(lambda: len(self.replicas(model)) >= count, lambda: f"{self.show(model)}\n{self.system.logs()}")

    def undeploy(self, model: str) -> None:
        """Take the deployment away."""
        assert self.door.http.delete(f"/api/models/{model}/deployment").status_code == 204

    def clear(self) -> None:
        """Take every deployment away and wait until no gateway knows one."""
        for row in self.door.http.get("/api/deployments/").json():
            self.undeploy(row["human_readable_id"])
        wait_until(lambda: not self.door.http.get("/api/deployments/").json(), self.system.logs)

    def wait_routed(self, *applications: str) -> None:
        """Until every process of the gateway knows exactly these applications."""

        def known() -> bool:
            # The domain leads to the control process, the name to one of the workers.
            return all(self.applications(name) == sorted(applications) for name in (None, NAME, NAME, NAME))

        wait_until(known, lambda: f"{self.applications(NAME)}\n{self.system.logs()}")

    def applications(self, name: str | None) -> list[str]:
        """What Ray's ListApplications says; empty where it says that there is nothing."""
        with self.channel(name) as channel:
            call = channel.unary_unary("/ray.serve.RayServeAPIService/ListApplications")
            try:
                answer: bytes = call(b"", timeout=60)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                return []
        return sorted(text.decode() for text in strings(answer))


def strings(message: bytes) -> Iterator[bytes]:
    """The values of a message that has nothing but strings of field 1, each shorter than 128 bytes."""
    while message:
        assert message[0] == 0x0A
        yield message[2 : 2 + message[1]]
        message = message[2 + message[1] :]


def application(name: str, *more: tuple[str, str | bytes]) -> Metadata:
    """The metadata that names an application."""
    return (("application", name), *more)


def fresh_name() -> str:
    """A name that nothing else has."""
    return f"n-{secrets.token_hex(4)}"
