"""Two real Docker Engines in one swarm, each of a host made for the time of the test.

This machine's own Engine stays out of it: one that leaves a swarm forgets the names of every other container that it
runs (https://github.com/moby/moby/issues/45144).

A host comes from the program that `TEST_SECOND_HOST_COMMAND` names: `PROGRAM up NAME N` makes one at 10.77.0.N, on one
link with this machine's 10.77.0.1, prints the address of its Engine and ties it to the interface `host-NAME`;
`PROGRAM down NAME` removes it. All share one file system and one kernel.
"""

import os
import random
import re
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.compose import DOMAIN, ROOT, build_image, make_files
from tests.e2e.images import echo_image
from tests.e2e.systems import free_port, port_is_free
from tests.tcp_proxy import TcpProxy
from tests.waiting import START_S, wait_until

COMMAND = os.environ.get("TEST_SECOND_HOST_COMMAND")
PLATFORM_LABEL, CONSUMER_LABEL = "inference-server.platform", "inference-server.consumer"


def run(*command: str, check: bool = True) -> str:
    """Run a command; returns its stdout without the white space around it."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, f"{command}: {done.stderr}"
    return done.stdout.strip()


@dataclass(frozen=True)
class Host:
    """A Docker host of the swarm. It can be cut off."""

    engine: str
    """The address of its Engine."""
    address: str
    interface: str

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
        return self._of_run("task", uid)

    def of_replica(self, uid: str) -> list[str]:
        """The containers and volumes of a replica here."""
        return self._of_run("replica", uid)

    def _of_run(self, kind: str, uid: str) -> list[str]:
        label = ("--filter", f"label=inference-server.{kind}={uid}")
        return [*self.docker("ps", "-aq", *label).split(), *self.docker("volume", "ls", "-q", *label).split()]

    def runs(self, uid: str, status: str) -> bool:
        """Whether a container of this task has this status here."""
        filters = ("--filter", f"label=inference-server.task={uid}", "--filter", f"status={status}")
        return bool(self.docker("ps", "-aq", *filters))

    def logs(self, service: str) -> str:
        """What every container of a swarm service wrote here, ended ones included."""
        found = self.docker("ps", "-aq", "--filter", f"label=com.docker.swarm.service.name={service}").split()
        # Each goes to its own stream; one that is removed meanwhile says nothing.
        commands = [["docker", "--host", self.engine, "logs", container] for container in found]
        parts = [subprocess.run(command, capture_output=True, text=True, check=False) for command in commands]
        return "\n".join(part.stdout + part.stderr for part in parts)

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
    worker: Host

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

    def state(self, host: Host) -> str:
        """What the swarm takes a host's node for: `ready` or `down`."""
        return self.manager.docker("node", "inspect", "--format", "{{.Status.State}}", host.name)

    def pass_time(self, uid: str, table: str = "tasks") -> None:
        """As if the lease's time had passed since the last heartbeat of the holder of a task, or of a replica."""
        (postgres,) = self.manager.docker("ps", "-q", "--filter", f"name={self.stack}_postgres").split()
        statement = f"UPDATE {table} SET lease_until = now() WHERE uid = '{uid}'"  # noqa: S608 - hex digits
        answer = self.manager.docker("exec", postgres, "psql", "-U", "inference", "-d", "inference", "-c", statement)
        assert answer == "UPDATE 1", answer

    def outputs(self, uid: str) -> list[Path]:
        """The archives of a task's outputs, those of lost attempts included."""
        name = f"{self.stack}_data"
        data = Path(self.manager.docker("volume", "inspect", "--format", "{{.Mountpoint}}", name))
        return [path for path in (data / "archives/outputs" / uid).rglob("*") if path.is_file()]

    def logs(self) -> str:
        """What a failing test shows."""
        services = ("traefik", "public-api", "grpc-gateway", "private-api", "postgres", "rabbitmq")
        logs = {name: self.manager.logs(f"{self.stack}_{name}") for name in services}
        logs |= {f"consumer at {host.name}": self.consumer_logs(host) for host in (self.manager, self.worker)}
        tasks = self.manager.docker("stack", "ps", "--no-trunc", self.stack, check=False)
        return "\n".join([tasks, *(f"--- {name}\n{log[-3000:]}" for name, log in logs.items())])


@contextmanager
def swarm_stack(folder: Path) -> Iterator[Swarm]:
    """The stack of stack.yaml, deployed on two hosts; everything is removed at the end."""
    if not COMMAND:
        # Not `missing`: that would fail wherever CI has no such program.
        pytest.skip("no second Docker host: TEST_SECOND_HOST_COMMAND names no program that makes hosts")
    first, second = random.sample(range(2, 251), 2)
    with (
        _host(COMMAND, first) as manager,
        _host(COMMAND, second) as worker,
        _linked(manager, worker),
        _joined(manager, worker),
        _deployed(manager, worker, folder) as swarm,
    ):
        yield swarm


@contextmanager
def _host(command: str, number: int) -> Iterator[Host]:
    # An interface's name has 15 characters at most.
    name = f"is{secrets.token_hex(3)}"
    try:
        engine = run(command, "up", name, str(number)).splitlines()[-1]
        yield Host(engine, f"10.77.0.{number}", f"host-{name}")
    finally:
        run("ip", "link", "set", f"host-{name}", "up", check=False)
        run(command, "down", name, check=False)


@contextmanager
def _linked(manager: Host, worker: Host) -> Iterator[None]:
    """Let the two speak to each other: this machine's Engine forbids what is bridged and not its own."""
    (link,) = {Path(f"/sys/class/net/{host.interface}/master").resolve().name for host in (manager, worker)}
    rule = ("DOCKER-USER", "--in-interface", link, "--out-interface", link, "--jump", "ACCEPT")
    run("iptables", "--insert", *rule)
    try:
        yield
    finally:
        run("iptables", "--delete", *rule, check=False)


@contextmanager
def _joined(manager: Host, worker: Host) -> Iterator[None]:
    try:
        manager.docker("swarm", "init", "--advertise-addr", manager.address)
        token = manager.docker("swarm", "join-token", "-q", "worker")
        worker.docker("swarm", "join", "--token", token, f"{manager.address}:2377")
        manager.docker("node", "update", "--label-add", f"{PLATFORM_LABEL}=true", manager.name)
        yield
    finally:
        # It ends what runs, for nothing to start again while the hosts are removed.
        worker.docker("swarm", "leave", "--force", check=False)
        manager.docker("swarm", "leave", "--force", check=False)


@contextmanager
def _deployed(manager: Host, worker: Host, folder: Path) -> Iterator[Swarm]:
    make_files(folder)
    ours = (build_image(), echo_image())
    platform = re.findall(r"^ +image: \$\{(?!INFERENCE_)\w+:-(\S+)\}$", (ROOT / "stack.yaml").read_text(), re.MULTILINE)
    with ThreadPoolExecutor() as pool:
        loads = [pool.submit(worker.load, *ours), pool.submit(manager.load, *ours, *platform)]
    for load in loads:
        load.result()
    stack, port = f"is-test-{secrets.token_hex(3)}", free_port()
    variables = {
        "INFERENCE_SERVER_IMAGE": build_image(),
        "GRPC_WORKERS": "2",
        "PROXY_DOMAIN": DOMAIN,
        "HTTPS_PORT": str(port),
        "HTTP_PORT": str(free_port()),
        "ALLOW_PUBLIC_POST_MODEL": "1",
        "MEMORY_LIMIT_BYTES": str(4 * 1024**3),
        "WORK_VOLUME": f"{stack}_work",
        "DOCKER_SOCKET": _sockets(folder, manager, worker),
    }
    verify = str(folder / "traefik/certs/server.crt")
    # There is no key before there is a database; the first deployment starts no consumer.
    (folder / "secrets/consumer_key").write_text("none yet")
    _deploy(manager, stack, folder, variables)
    (folder / "secrets/consumer_key").write_text(_make_key(manager, stack))
    _deploy(manager, stack, folder, {**variables, "CONSUMER_KEY_VERSION": "2"})
    # Before, the proxy would cut connections off at once, and a TLS client may then leave its socket open.
    wait_until(
        lambda: not port_is_free(port, manager.address), lambda: manager.docker("stack", "ps", stack), within_s=START_S
    )
    # The certificate is for a name of this machine's.
    with TcpProxy(f"//{manager.address}:{port}", port) as front:
        yield Swarm(stack, f"https://{DOMAIN}:{front.port}", verify, manager, worker)


def _deploy(manager: Host, stack: str, folder: Path, variables: Mapping[str, str]) -> None:
    text = (ROOT / "stack.yaml").read_text()
    if not kernel_has_ipsec():
        # Docker drops what it cannot encrypt.
        text, found = re.subn(r"    driver_opts:\n(?:      .*\n)+", "", text)
        assert found == 2
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

    wait_until(make, lambda: manager.docker("stack", "ps", "--no-trunc", stack), within_s=START_S)
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
