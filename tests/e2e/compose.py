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
from typing import IO

from tests.e2e.health_checks import RARE_CHECKS, rare_health_checks
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
    def environment(self) -> dict[str, str]:
        """What commands of the project run with."""
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
            env=self.environment,
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
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        return done.stdout

    def container(self, service: str) -> str:
        """The id of the container of one of this project's services; other projects have services of the same name."""
        (container,) = self.run("ps", "--all", "--quiet", service).split()
        return container

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
        """Start the container that exists."""
        self._compose.run("start", self.name)

    def end(self) -> None:
        """Stop it within its grace period."""
        self._compose.run("stop", self.name)

    def kill(self) -> None:
        """Kill it; it stays dead, for Compose does not restart what it killed itself."""
        self._compose.run("kill", "--signal", "KILL", self.name)

    def output(self) -> str:
        """Its log."""
        return self._compose.run("logs", "--no-color", self.name)

    @property
    def container(self) -> str:
        """The id of its container."""
        return self._compose.container(self.name)

    def execute(self, *command: str) -> str:
        """Run a command in its container; returns its stdout."""
        return self._compose.run("exec", "-T", self.name, *command).strip()

    def change(self, variables: Mapping[str, str]) -> None:
        """Start it again with other values of the project's variables; it is healthy when this returns."""
        self._compose.variables |= variables
        self._compose.run("up", "--detach", "--wait", "--no-deps", self.name)


@functools.cache
def build_image() -> str:
    """The project's image, built once per run of the tests."""
    environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
    command = ["docker", "build", "--quiet", "--tag", IMAGE, str(ROOT)]
    # Whoever comes second finds every layer made.
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


@functools.cache
def _lock_of_real_ports() -> IO[str] | None:
    """Held by the one process whose stacks may have ports 443 and 80, for as long as it runs; None in all others."""
    try:
        lock = (Path(tempfile.gettempdir()) / "inference-server-tests-ports").open("w")
    except PermissionError:  # Another user's.
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


def beside_others() -> dict[str, str]:
    """Variables that keep a project out of the way of others on this machine."""
    # The real ports where this machine has them to spare.
    has_real_ports = _lock_of_real_ports() and port_is_free(443) and port_is_free(80)
    https, http = (443, 80) if has_real_ports else (free_port(), free_port())
    return {
        "INFERENCE_SERVER_IMAGE": build_image(),
        "HTTPS_PORT": str(https),
        "HTTP_PORT": str(http),
        "CONSUMER_NAME": f"test-{secrets.token_hex(4)}",
        "MEMORY_LIMIT_BYTES": str(4 * 1024**3),
    }


class ComposeStack:
    """All services of a project at once, as an operator stops and starts them."""

    name = "stack"

    def __init__(self, compose: Compose) -> None:
        self._compose = compose

    def start(self) -> None:
        """Start the containers that exist."""
        self._compose.run("up", "--detach", "--wait")

    def end(self) -> None:
        """Stop them within their grace periods."""
        self._compose.run("stop")

    def kill(self) -> None:
        """Kill them; they stay dead."""
        self._compose.run("kill", "--signal", "KILL")

    def output(self) -> str:
        """The end of every log."""
        return self._compose.logs()


def service_of(system: System, name: str) -> ComposeService:
    """A service of a stack that Compose runs."""
    (found,) = (each for each in system.processes if isinstance(each, ComposeService) and each.name == name)
    return found


@contextmanager
def compose_project(folder: Path, extra: Mapping[str, str] | None = None) -> Iterator[tuple[Compose, str]]:
    """Make a project with everything that `up` needs; yields it and its URL, with nothing running yet."""
    for name in ("docker-compose.yaml", "compose.redhare.yaml"):
        shutil.copy(ROOT / name, folder)
    (folder / RARE_CHECKS).write_text(rare_health_checks((ROOT / "docker-compose.yaml").read_text()))
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
            whole=ComposeStack(compose),
        )
        try:
            system.wait_ready()
            yield system
        finally:
            compose.run("stop", "--timeout", "5", check=False)
            remove_leftovers(system)
