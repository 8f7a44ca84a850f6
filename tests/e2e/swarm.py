"""Two real Docker Engines in one swarm: this machine's, which is the manager, and that of a second host.

The second host comes from the program that `TEST_SECOND_HOST_COMMAND` names: `PROGRAM up NAME N` makes a host at
10.77.0.N, on one link with this machine's 10.77.0.1, prints the address of its Engine and ties it to the interface
`host-NAME`; `PROGRAM down NAME` removes it. Both share one file system and one kernel.
"""

import os
import re
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.compose import DOMAIN, ROOT, build_image, make_files
from tests.e2e.images import echo_image
from tests.e2e.systems import free_port
from tests.services import missing

COMMAND = os.environ.get("TEST_SECOND_HOST_COMMAND")
MANAGER_ADDRESS = "10.77.0.1"
PLATFORM_LABEL, CONSUMER_LABEL = "inference-server.platform", "inference-server.consumer"
RUN_LABEL = "inference-server.task"


def run(*command: str, check: bool = True) -> str:
    """Run a command; returns its stdout without the white space around it."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, f"{command}: {done.stderr}"
    return done.stdout.strip()


@dataclass(frozen=True)
class Host:
    """A Docker host of the swarm."""

    engine: str
    """The address of its Engine."""

    def docker(self, *arguments: str, check: bool = True) -> str:
        """Run a command of Docker's CLI against this host."""
        return run("docker", "--host", self.engine, *arguments, check=check)

    @property
    def name(self) -> str:
        """What the swarm calls it."""
        return self.docker("info", "--format", "{{.Name}}")

    def load(self, *images: str) -> None:
        """Bring images over from this machine's Engine."""
        load = ["docker", "--host", self.engine, "load", "--quiet"]
        with subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE) as save:
            subprocess.run(load, stdin=save.stdout, capture_output=True, check=True)
        assert save.returncode == 0

    def of_task(self, uid: str) -> list[str]:
        """The containers and volumes of a task here, those of ended attempts included."""
        label = ("--filter", f"label={RUN_LABEL}={uid}")
        return [*self.docker("ps", "-aq", *label).split(), *self.docker("volume", "ls", "-q", *label).split()]

    def runs(self, uid: str, status: str) -> bool:
        """Whether a container of this task has this status here."""
        filters = ("--filter", f"label={RUN_LABEL}={uid}", "--filter", f"status={status}")
        return bool(self.docker("ps", "-aq", *filters))

    def logs(self, service: str) -> str:
        """What every container of a swarm service wrote here, ended ones included."""
        found = self.docker("ps", "-aq", "--filter", f"label=com.docker.swarm.service.name={service}").split()
        # Each goes to its own stream; one that is removed meanwhile says nothing.
        commands = [["docker", "--host", self.engine, "logs", container] for container in found]
        parts = [subprocess.run(command, capture_output=True, text=True, check=False) for command in commands]
        return "\n".join(part.stdout + part.stderr for part in parts)


@dataclass(frozen=True)
class SecondHost(Host):
    """The host that can be cut off."""

    interface: str

    def cut_off(self) -> None:
        """As a pulled cable would; its Engine still answers on its socket."""
        run("ip", "link", "set", self.interface, "down")

    def reconnect(self) -> None:
        """Put the cable back."""
        run("ip", "link", "set", self.interface, "up")


@dataclass(frozen=True)
class Swarm:
    """A deployed stack on both hosts; no node runs consumers yet."""

    stack: str
    url: str
    verify: str
    """The certificate to trust."""
    manager: Host
    worker: SecondHost

    def allow_consumers(self, host: Host) -> None:
        """Label a host's node for consumers."""
        self.manager.docker("node", "update", "--label-add", f"{CONSUMER_LABEL}=true", host.name)

    def forbid_consumers(self, host: Host) -> None:
        """Take that label away."""
        self.manager.docker("node", "update", "--label-rm", CONSUMER_LABEL, host.name)

    def consumer(self, host: Host) -> str:
        """The name of a host's consumer."""
        return f"{self.stack}_job-consumer-{host.name}"

    def claims(self, uid: str) -> list[str]:
        """The consumers that took a task, in order."""
        lines = self.manager.logs(f"{self.stack}_private-api")
        return re.findall(rf"task={uid} queued -> leased fence=\d+ consumer=(\S+)", lines)

    def consumer_logs(self, host: Host) -> str:
        """What the consumers of a host wrote."""
        return host.logs(f"{self.stack}_job-consumer")

    def consumers(self, host: Host) -> str:
        """The ids of the consumers' containers that run on a host."""
        return host.docker("ps", "-q", "--filter", f"label=com.docker.swarm.service.name={self.stack}_job-consumer")

    def outputs(self, uid: str) -> list[Path]:
        """The archives of a task's outputs, those of lost attempts included."""
        name = f"{self.stack}_data"
        data = Path(self.manager.docker("volume", "inspect", "--format", "{{.Mountpoint}}", name))
        return [path for path in (data / "archives/outputs" / uid).rglob("*") if path.is_file()]

    def describe(self) -> str:
        """What a failing test shows."""
        services = ("traefik", "public-api", "private-api", "postgres", "rabbitmq")
        logs = {name: self.manager.logs(f"{self.stack}_{name}") for name in services}
        logs |= {f"consumer at {host.name}": self.consumer_logs(host) for host in (self.manager, self.worker)}
        tasks = self.manager.docker("stack", "ps", "--no-trunc", self.stack, check=False)
        return "\n".join([tasks, *(f"--- {name}\n{log[-3000:]}" for name, log in logs.items())])


@contextmanager
def swarm_stack(folder: Path) -> Iterator[Swarm]:
    """The stack of stack.yaml, deployed on two hosts; everything is removed at the end."""
    if not COMMAND:
        # Not `missing`: that would fail wherever CI has no such program.
        pytest.skip("no second Docker host: TEST_SECOND_HOST_COMMAND names no program that makes one")
    manager = Host(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"))
    if manager.docker("info", "--format", "{{.Swarm.LocalNodeState}}") != "inactive":
        missing("this Docker Engine belongs to a swarm already")
    with _second_host(COMMAND) as worker, _joined(manager, worker), _deployed(manager, worker, folder) as swarm:
        yield swarm


@contextmanager
def _second_host(command: str) -> Iterator[SecondHost]:
    # An interface's name has 15 characters at most.
    name, number = f"is{secrets.token_hex(3)}", 2 + secrets.randbelow(249)
    try:
        engine = run(command, "up", name, str(number)).splitlines()[-1]
        yield SecondHost(engine, f"host-{name}")
    finally:
        run("ip", "link", "set", f"host-{name}", "up", check=False)
        run(command, "down", name, check=False)


@contextmanager
def _joined(manager: Host, worker: Host) -> Iterator[None]:
    had_gateway = bool(manager.docker("network", "ls", "-q", "--filter", "name=docker_gwbridge"))
    try:
        manager.docker("swarm", "init", "--advertise-addr", MANAGER_ADDRESS)
        token = manager.docker("swarm", "join-token", "-q", "worker")
        worker.docker("swarm", "join", "--token", token, f"{MANAGER_ADDRESS}:2377")
        manager.docker("node", "update", "--label-add", f"{PLATFORM_LABEL}=true", manager.name)
        yield
    finally:
        worker.docker("swarm", "leave", "--force", check=False)
        manager.docker("swarm", "leave", "--force", check=False)
        if not had_gateway:
            _until(lambda: not manager.docker("network", "rm", "docker_gwbridge", check=False), 1)


@contextmanager
def _deployed(manager: Host, worker: SecondHost, folder: Path) -> Iterator[Swarm]:
    make_files(folder)
    worker.load(build_image(), echo_image())
    stack, port = f"is-test-{secrets.token_hex(3)}", free_port()
    variables = {
        "INFERENCE_SERVER_IMAGE": build_image(),
        "PROXY_DOMAIN": DOMAIN,
        "HTTPS_PORT": str(port),
        "HTTP_PORT": str(free_port()),
        "ALLOW_PUBLIC_POST_MODEL": "1",
        "MEMORY_LIMIT_BYTES": str(4 * 1024**3),
        "WORK_VOLUME": f"{stack}_work",
        "DOCKER_SOCKET": _sockets(folder, manager, worker),
    }
    verify = str(folder / "traefik/certs/server.crt")
    swarm = Swarm(stack, f"https://{DOMAIN}:{port}", verify, manager, worker)
    try:
        # There is no key before there is a database; the first deployment starts no consumer.
        (folder / "secrets/consumer_key").write_text("none yet")
        _deploy(manager, stack, folder, variables)
        (folder / "secrets/consumer_key").write_text(_make_key(manager, stack))
        _deploy(manager, stack, folder, {**variables, "CONSUMER_KEY_VERSION": "2"})
        yield swarm
    finally:
        manager.docker("stack", "rm", stack, check=False)
        label = f"label=com.docker.stack.namespace={stack}"
        _until(lambda: not manager.docker("ps", "-aq", "--filter", label), 60)
        _remove_runs(manager, swarm.consumer(manager))
        for volume in manager.docker("volume", "ls", "-q", "--filter", label).split():
            manager.docker("volume", "rm", volume, check=False)


def _deploy(manager: Host, stack: str, folder: Path, variables: Mapping[str, str]) -> None:
    text = (ROOT / "stack.yaml").read_text()
    if not kernel_has_ipsec():
        # Docker drops what it cannot encrypt.
        text, found = re.subn(r"    driver_opts:\n(?:      .*\n)+", "", text)
        assert found == 1
    (folder / "stack.yaml").write_text(text)
    command = ["docker", "--host", manager.engine, "stack", "deploy", "--resolve-image", "never"]
    command += ["--compose-file", str(folder / "stack.yaml"), stack]
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _make_key(manager: Host, stack: str) -> str:
    made: list[str] = []

    def make() -> bool:
        found = manager.docker("ps", "-q", "--filter", f"label=com.docker.swarm.service.name={stack}_private-api")
        command = ("inference-server", "keys", "create", "--owner", "workers", "--scope", "consume")
        made.extend(manager.docker("exec", found.split()[0], *command, check=False).split() if found else [])
        return bool(made)

    _until(make, 240)
    assert made, "no key could be made"
    return made[0]


def kernel_has_ipsec() -> bool:
    """Whether this kernel knows ESP, which encrypted overlay networks are made of."""
    probe = ("add", "src", "192.0.2.1", "dst", "192.0.2.2", "proto", "esp", "spi", "0x49530001", "mode", "transport")
    keys = ("aead", "rfc4106(gcm(aes))", f"0x{secrets.token_hex(20)}", "64")
    state = ["ip", "xfrm", "state"]
    if subprocess.run([*state, *probe, *keys], capture_output=True, check=False).returncode != 0:
        return False
    run(*state, "delete", *probe[1:9])
    return True


def _sockets(folder: Path, *hosts: Host) -> str:
    """The path of a node's own Docker socket, as a template: under its usual path each host sees the first one's."""
    for host in hosts:
        (folder / f"{host.name}.sock").symlink_to(host.engine.removeprefix("unix://"))
    return f"{folder}/{{{{.Node.Hostname}}}}.sock"


def _remove_runs(host: Host, consumer: str) -> None:
    label = ("--filter", f"label=inference-server.consumer={consumer}")
    for container in host.docker("ps", "-aq", *label).split():
        host.docker("rm", "--force", container, check=False)
    for volume in host.docker("volume", "ls", "-q", *label).split():
        host.docker("volume", "rm", volume, check=False)


def _until(condition: Callable[[], bool], seconds: float) -> None:
    """Give a removal its time; what is left then is left."""
    ends_at = time.monotonic() + seconds
    while not condition() and time.monotonic() < ends_at:
        time.sleep(0.2)
