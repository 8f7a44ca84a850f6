"""What the Docker Engine reports about itself, over its socket. No container is touched."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

_TIMEOUT_S = 10


class EngineSilentError(Exception):
    """The Docker Engine does not answer. The text says where it was expected, and why it failed."""


@dataclass(frozen=True)
class EngineAnswers:
    """The Engine's answers as JSON."""

    version: Mapping[str, Any]
    info: Mapping[str, Any]
    containers: list[Mapping[str, Any]]
    services: list[Mapping[str, Any]]
    """Services of Swarm; empty if this host is not a manager."""
    volumes: list[Mapping[str, Any]]
    networks: list[Mapping[str, Any]]


def ask_engine(address: str) -> EngineAnswers:
    """Ask the Engine at a socket's path, or at a URL as in DOCKER_HOST. Raises `EngineSilentError`."""
    path = address.removeprefix("unix://")
    transport = httpx.HTTPTransport(uds=path) if path.startswith("/") else httpx.HTTPTransport()
    base_url = "http://engine" if path.startswith("/") else address.replace("tcp://", "http://", 1)
    try:
        # Checked first: httpx does not close a socket that it could not connect.
        if path.startswith("/") and not Path(path).is_socket():
            raise EngineSilentError(f"there is no Docker socket at {address}")
        with httpx.Client(base_url=base_url, transport=transport, timeout=_TIMEOUT_S) as http:
            info = _get(http, "/info")
            is_manager = info.get("Swarm", {}).get("ControlAvailable", False)
            return EngineAnswers(
                version=_get(http, "/version"),
                info=info,
                containers=_get(http, "/containers/json"),
                services=_get(http, "/services") if is_manager else [],
                volumes=_get(http, "/volumes")["Volumes"] or [],
                networks=_get(http, "/networks"),
            )
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise EngineSilentError(f"no Docker Engine answers at {address}: {error}") from error


def _get(http: httpx.Client, path: str) -> Any:
    return http.get(path).raise_for_status().json()
