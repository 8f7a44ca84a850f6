"""The whole stack as operators run it: docker-compose.yaml behind Traefik's TLS, in a folder and project of its own."""

import fcntl
import functools
import hashlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.systems import System, free_port, port_is_free, remove_leftovers

ROOT = Path(__file__).parents[2]
# Of this checkout: another one that is tested at the same time must not swap the image under a running stack.
IMAGE = f"inference-server:tests-{hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]}"
DOMAIN = "localhost"
"""It must resolve here, without any name server."""


class Compose:
    """One Compose project."""

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        self.folder = folder
        self.project = f"is-test-{secrets.token_hex(3)}"
        self.variables = {**variables, "COMPOSE_PROJECT_NAME": self.project}

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, **self.variables}

    @property
    def url(self) -> str:
        """Where its door is."""
        port = self.variables["HTTPS_PORT"]
        return f"https://{DOMAIN}" if port == "443" else f"https://{DOMAIN}:{port}"

    def run(self, *arguments: str, check: bool = True) -> str:
        """Run `docker compose` with these arguments; returns its stdout."""
        done = subprocess.run(
            ["docker", "compose", *arguments],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0 or not check, f"{arguments}: {done.stderr}\n{self.logs()}"
        return done.stdout

    def logs(self) -> str:
        """The end of every service's output."""
        command = ["docker", "compose", "logs", "--no-color", "--tail", "40"]
        done = subprocess.run(
            command, cwd=self.folder, env=self._environment, capture_output=True, text=True, check=False
        )
        return done.stdout

    def container(self, service: str) -> str:
        """The id of a service's container."""
        return self.run("ps", "--all", "--quiet", service).strip()

    def volume_path(self, name: str) -> Path:
        """Where the Engine keeps a volume of this project."""
        command = ["docker", "volume", "inspect", "--format", "{{.Mountpoint}}", f"{self.project}_{name}"]
        return Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())


class ComposeService:
    """One service of a project, for tests to end and start."""

    def __init__(self, compose: Compose, name: str) -> None:
        self.name = name
        self._compose = compose

    def start(self) -> None:
        """Start the container that is there."""
        self._compose.run("start", self.name)

    def end(self) -> None:
        """Stop it within its grace period."""
        self._compose.run("stop", self.name)

    def kill(self) -> None:
        """Kill it, for good: Compose does not restart what it killed itself."""
        self._compose.run("kill", "--signal", "KILL", self.name)

    def output(self) -> str:
        """Its log."""
        return self._compose.run("logs", "--no-color", self.name)

    def execute(self, *command: str) -> str:
        """Run a command in its container; returns its stdout."""
        return self._compose.run("exec", "-T", self.name, *command).strip()

    def change(self, variables: Mapping[str, str]) -> None:
        """Start it anew with other values of the project's variables; healthy when this returns."""
        self._compose.variables |= variables
        self._compose.run("up", "--detach", "--wait", "--no-deps", self.name)


@functools.cache
def build_image() -> str:
    """The project's image, built once per run of the tests."""
    environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
    command = ["docker", "build", "--quiet", "--tag", IMAGE, str(ROOT)]
    # Who comes second finds every layer made.
    with (Path(tempfile.gettempdir()) / IMAGE.replace(":", "-")).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return IMAGE


def make_files(folder: Path) -> None:
    """What Compose and Swarm hand to containers as files: Traefik's configuration, a certificate, secrets."""
    shutil.copytree(ROOT / "traefik", folder / "traefik")
    for made in ("server.key", "server.crt"):
        (folder / "traefik/certs" / made).unlink(missing_ok=True)
    subprocess.run([str(folder / "traefik/certs/generate_self_signed_certs"), DOMAIN], check=True, capture_output=True)
    subprocess.run([sys.executable, "-m", "operations.secrets", "--dir", str(folder / "secrets")], cwd=ROOT, check=True)


def beside_others() -> dict[str, str]:
    """The variables by which a project does not get in the way of another one on this machine."""
    # The real ports where this machine has them to spare.
    https, http = (443, 80) if port_is_free(443) and port_is_free(80) else (free_port(), free_port())
    return {
        "INFERENCE_SERVER_IMAGE": build_image(),
        "HTTPS_PORT": str(https),
        "HTTP_PORT": str(http),
        "CONSUMER_NAME": f"test-{secrets.token_hex(4)}",
        "MEMORY_LIMIT_BYTES": str(4 * 1024**3),
    }


@contextmanager
def compose_project(folder: Path, extra: Mapping[str, str] | None = None) -> Iterator[tuple[Compose, str]]:
    """A project with everything made that `up` needs; yields it and its URL. Nothing runs yet."""
    for name in ("docker-compose.yaml", "compose.redhare.yaml"):
        shutil.copy(ROOT / name, folder)
    make_files(folder)
    settings = {"PROXY_DOMAIN": DOMAIN, "COMPOSE_PROFILES": "cpu", "ALLOW_PUBLIC_POST_MODEL": "1"}
    compose = Compose(folder, {**beside_others(), **settings, **(extra or {})})
    try:
        yield compose, compose.url
    finally:
        compose.run("down", "--volumes", "--timeout", "5", check=False)


@contextmanager
def compose_system(
    folder: Path, *, gpu_uuid: str | None = None, extra: Mapping[str, str] | None = None
) -> Iterator[System]:
    """The stack, healthy."""
    with compose_project(folder, {"GPU_UUID": gpu_uuid or "", **(extra or {})}) as (compose, url):
        compose.run("up", "--detach", "--wait")
        names = ["postgres", "rabbitmq", "private-api", "public-api", "grpc-gateway", "traefik", "job-consumer"]
        services = [ComposeService(compose, name) for name in names]
        system = System(
            name="compose",
            url=url,
            consumer=services[-1],
            consumer_name=lambda: compose.variables["CONSUMER_NAME"],
            work_dir=compose.volume_path("work"),
            data_dir=compose.volume_path("data"),
            gpu_uuid=gpu_uuid,
            processes=services,
            verify=str(folder / "traefik/certs/server.crt"),
        )
        try:
            system.wait_ready()
            yield system
        finally:
            compose.run("stop", "--timeout", "5", check=False)
            remove_leftovers(system)
