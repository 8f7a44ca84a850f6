"""The operator's own stack: what Compose says of it, how its parts are killed, and what runs leave on its Engine."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PATIENCE_S = 300


class StackError(Exception):
    """The stack cannot be used for this, or does not come back; the text says why."""


@dataclass(frozen=True)
class ComposeStack:
    """The project of a folder with a docker-compose.yaml. Every method raises `StackError`."""

    folder: Path
    variables: Mapping[str, str]
    """The environment of every command."""

    def image(self) -> str:
        """The image of the services."""
        return str(self._configuration()["services"]["private-api"]["image"])

    def project(self) -> str:
        """The project's name."""
        return str(self._configuration()["name"])

    def consumers(self) -> list[str]:
        """The consumers that run."""
        running = self._run("compose", "ps", "--services", "--filter", "status=running").split()
        found = [service for service in running if service.startswith("job-consumer")]
        if not found:
            raise StackError(f"no consumer runs in {self.folder}; start the stack with `make up`")
        return found

    def certificate(self) -> str:
        """The certificate that clients must trust, as PEM: the operator's, or the one that Compose made."""
        given = self.folder / "traefik" / "certs" / "server.crt"
        if given.exists():
            return given.read_text()
        return self._run("compose", "exec", "-T", "traefik", "cat", "/run/certificate/server.crt")

    def kill(self, *services: str) -> None:
        """End services as a power cut would."""
        self._run("compose", "kill", "--signal", "KILL", *services)

    def start(self, *services: str) -> None:
        """Start services that were killed, in the containers that they had."""
        self._run("compose", "start", *services)

    def build(self, tag: str, dockerfile: str) -> None:
        """Build an image on the Engine, out of nothing but a Dockerfile."""
        self._run("build", "--quiet", "--tag", tag, "-", given=dockerfile)

    def remove_image(self, tag: str) -> None:
        """Remove an image."""
        self._run("image", "rm", tag)

    def containers(self, uid: str) -> list[str]:
        """The containers of a task, in any state."""
        return self._run("ps", "--all", "--quiet", "--filter", f"label=inference-server.task={uid}").split()

    def _configuration(self) -> dict[str, Any]:
        configuration: dict[str, Any] = json.loads(self._run("compose", "config", "--format", "json"))
        return configuration

    def _run(self, *arguments: str, given: str | None = None) -> str:
        try:
            done = subprocess.run(
                ["docker", *arguments],
                cwd=self.folder,
                env=dict(self.variables),
                input=given,
                capture_output=True,
                text=True,
                check=False,
                timeout=_PATIENCE_S,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise StackError(f"docker {' '.join(arguments[:2])}: {error}") from error
        if done.returncode != 0:
            raise StackError(f"docker {' '.join(arguments[:2])}: {done.stderr.strip()[-400:]}")
        return done.stdout
