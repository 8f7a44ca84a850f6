"""What a replica reaches and who reaches it, tried from inside its container: its port, the gateway, nothing else."""

import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Thread

import docker
import pytest

from job_consumer.engines import CannotGuard, EngineUnavailable, RunKey, RunState
from job_consumer.engines.docker.engine import DockerEngine
from job_consumer.engines.docker.networks import NOTHING
from job_consumer.networks import NetworkAccess
from job_consumer.replicas.probe import is_walled
from operations.checks.guard import check_guard
from operations.findings import Level
from tests.engine_client import SOCKET, engine_client
from tests.integration.engine_harness import Harness, build_image, docker_harness
from tests.services import require_docker
from tests.waiting import wait_until

PORT, SIDE_PORT, GATEWAY_PORT = 9000, 9500, 9002
SERVER = "".join(
    f"while true; do echo {word} | nc -l -p {port}; done & "
    for word, port in (("served", PORT), ("side", SIDE_PORT), ("gw", GATEWAY_PORT))
)
SERVER += "sleep 600"


@pytest.fixture
def client() -> Iterator[docker.APIClient]:
    require_docker()
    with closing(engine_client()) as made:
        yield made


@pytest.fixture
def network(client: docker.APIClient) -> Iterator[str]:
    name = f"is-test-{secrets.token_hex(4)}"
    client.create_network(name, driver="bridge", internal=True)
    yield name
    client.remove_network(name)


@pytest.fixture
def harness(tmp_path: Path, client: docker.APIClient, network: str) -> Iterator[Harness]:
    # Its runs leave the network before it goes.
    assert network
    with docker_harness(tmp_path / "work", client) as made:
        yield made


def test_a_replica_reaches_the_gateway_and_nothing_else(
    harness: Harness, client: docker.APIClient, network: str
) -> None:
    with neighbour(client, network) as gateway, listener("0.0.0.0") as on_host:  # noqa: S104 - the attacker's dream
        access = NetworkAccess(network, PORT, gateway=f"gateway:{GATEWAY_PORT}")
        other, inside = (harness.start_replica(SERVER, access) for _ in range(2))
        victim = address_of(harness, other).rpartition(":")[0]
        host = client.inspect_network(network)["IPAM"]["Config"][0]["Gateway"]
        outside = own_address()
        assert try_from(client, inside, "gateway", GATEWAY_PORT) == "gw"
        assert try_from(client, inside, gateway, GATEWAY_PORT) == "gw"
        assert try_from(client, inside, "127.0.0.1", PORT) == "served"
        for target, port in (
            (gateway, PORT),
            (gateway, SIDE_PORT),
            (victim, PORT),
            (victim, SIDE_PORT),
            (victim, GATEWAY_PORT),
            (host, on_host),
            (outside, on_host),
            ("198.51.100.1", 80),
        ):
            assert try_from(client, inside, target, port) == "", (target, port)
        for key in (other, inside):
            harness.engine.remove(key)


def test_only_its_port_is_reached_and_from_its_network_alone(
    harness: Harness, client: docker.APIClient, network: str
) -> None:
    key = harness.start_replica(SERVER, NetworkAccess(network, PORT))
    address = address_of(harness, key)
    host, _, _ = address.rpartition(":")
    wait_until(lambda: read_from(host, PORT) == "served")
    assert read_from(host, SIDE_PORT) == ""
    assert is_walled(address, PORT)
    with neighbour(client, network) as _:
        name = f"gateway-{network}"
        assert ask(client, name, host, PORT) == "served"
        assert ask(client, name, host, SIDE_PORT) == ""
    harness.engine.remove(key)


def test_a_replica_cannot_take_its_wall_down(harness: Harness, client: docker.APIClient, network: str) -> None:
    key = harness.start_replica(SERVER, NetworkAccess(network, PORT), user=None, isolation="compatible")
    capabilities = inside_of(client, key, "id -u; grep CapEff /proc/self/status").split()
    assert capabilities == ["0", "CapEff:", "0" * 16]
    for attempt in ("ip link set eth0 down", "ip addr add 10.9.9.9/8 dev eth0"):
        assert "not permitted" in inside_of(client, key, f"{attempt} 2>&1; true")
    harness.engine.remove(key)


def test_without_a_guard_there_is_no_wall(harness: Harness, client: docker.APIClient, network: str) -> None:
    other, inside = (harness.start_replica(SERVER, NetworkAccess(network, PORT, is_guarded=False)) for _ in range(2))
    address = address_of(harness, other)
    victim = address.rpartition(":")[0]
    wait_until(lambda: read_from(victim, SIDE_PORT) == "side")
    assert not is_walled(address, PORT)
    assert try_from(client, inside, victim, SIDE_PORT) == "side"
    with listener("0.0.0.0") as on_host:  # noqa: S104 - the attacker's dream
        host = client.inspect_network(network)["IPAM"]["Config"][0]["Gateway"]
        assert try_from(client, inside, host, on_host) == "host"
    for key in (other, inside):
        harness.engine.remove(key)


def test_a_guard_that_somebody_ended_leaves_no_address_and_no_way(
    harness: Harness, client: docker.APIClient, network: str
) -> None:
    key = harness.start_replica(SERVER, NetworkAccess(network, PORT))
    address = address_of(harness, key)
    client.remove_container(f"{key.name}-guard", force=True)
    assert harness.replica_engine.address(key, PORT) is None
    assert harness.engine.wait(key, 0.1) is None
    assert read_from(address.rpartition(":")[0], PORT) == ""
    harness.engine.remove(key)


def test_what_is_left_of_a_start_that_was_cut_short_is_found_and_removed(
    harness: Harness, client: docker.APIClient, network: str
) -> None:
    key = harness.start_replica(SERVER, NetworkAccess(network, PORT))
    client.remove_container(key.name, force=True)
    assert harness.engine.find(harness.consumer) == [(key, RunState.CREATED)]
    harness.engine.remove(key)
    assert harness.engine.find(harness.consumer) == []


def test_whether_an_engine_can_guard_is_tried(client: docker.APIClient, network: str, tmp_path: Path) -> None:
    with closing(DockerEngine(work_dir=tmp_path, work_volume=None)) as engine:
        assert engine.why_unguarded(network) is None
        missing = engine.why_unguarded("is-test-nowhere")
        assert missing is not None
        assert "is-test-nowhere" in missing
    # An image without nft.
    with closing(DockerEngine(work_dir=tmp_path, work_volume=None, guard_image="busybox:1.37")) as engine:
        assert engine.why_unguarded(network) == ("the guard of a network does not stand: /bin/sh: nft: not found")
    with closing(DockerEngine(work_dir=tmp_path, work_volume=None, guard_image="is-test:absent")) as engine:
        assert "the image is-test:absent is not on this host" in (engine.why_unguarded(network) or "")
    assert not client.containers(all=True, filters={"network": network})
    assert client.images(name=NOTHING)


def test_doctor_tries_a_guard_and_says_what_to_do(client: docker.APIClient) -> None:
    assert check_guard({}, SOCKET).level is Level.OK
    without = check_guard({"REPLICA_GUARD_IMAGE": "busybox:1.37"}, SOCKET)
    assert (without.level, "nft: not found" in without.found) == (Level.WARNING, True)
    assert "package nftables" in without.advice


def test_a_replica_without_a_guard_that_stands_does_not_start(
    client: docker.APIClient, network: str, tmp_path: Path, harness: Harness
) -> None:
    harness.engine.close()
    harness.engine = DockerEngine(work_dir=tmp_path / "work", work_volume=None, guard_image="busybox:1.37")
    with pytest.raises(CannotGuard, match="does not stand"):
        harness.start_replica(SERVER, NetworkAccess(network, PORT))
    assert not client.containers(all=True, filters={"label": f"inference-server.replica={harness.keys[-1].uid}"})


def test_a_guard_that_was_ended_before_it_stood_says_nothing_of_the_next_one(
    client: docker.APIClient, network: str, tmp_path: Path, harness: Harness
) -> None:
    # Its `nft` ends as by a signal: so does one whose Engine stops.
    image = build_image(client, "RUN printf '#!/bin/sh\\nexit 137\\n' > /bin/nft && chmod +x /bin/nft")
    harness.engine.close()
    harness.engine = DockerEngine(work_dir=tmp_path / "work", work_volume=None, guard_image=image)
    with pytest.raises(EngineUnavailable, match="was ended"):
        harness.start_replica(SERVER, NetworkAccess(network, PORT))


def address_of(harness: Harness, key: RunKey) -> str:
    address = harness.replica_engine.address(key, PORT)
    assert address is not None
    return address


def inside_of(client: docker.APIClient, key: RunKey, script: str) -> str:
    """What a shell in the run's container says."""
    return run_in(client, key.name, script)


def run_in(client: docker.APIClient, name: str, script: str) -> str:
    made = client.exec_create(name, ["/bin/sh", "-c", script])
    said: bytes = client.exec_start(made["Id"])
    return said.decode()


def try_from(client: docker.APIClient, key: RunKey, host: str, port: int) -> str:
    return ask(client, key.name, host, port)


def ask(client: docker.APIClient, name: str, host: str, port: int) -> str:
    """What a listener answers to a container that connects; empty if it cannot."""
    return run_in(client, name, f"nc -w 2 {host} {port} </dev/null 2>/dev/null; true").strip()


def own_address() -> str:
    """This machine's address on the way outside."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("198.51.100.1", 80))
        return str(probe.getsockname()[0])


def read_from(host: str, port: int) -> str:
    try:
        with socket.create_connection((host, port), timeout=2) as connection:
            return connection.recv(100).decode().strip()
    except OSError:
        return ""


@contextmanager
def neighbour(client: docker.APIClient, network: str) -> Iterator[str]:
    """A container of the server's own on the network, by the name `gateway`; yields its address."""
    configuration = client.create_networking_config(
        {network: client.create_endpoint_config(aliases=["gateway"])}  # type: ignore[no-untyped-call]
    )
    made = client.create_container(
        "busybox:1.37",
        ["/bin/sh", "-c", SERVER],
        name=f"gateway-{network}",
        networking_config=configuration,
        host_config=client.create_host_config(network_mode=network),
    )
    try:
        client.start(made["Id"])
        yield client.inspect_container(made["Id"])["NetworkSettings"]["Networks"][network]["IPAddress"]
    finally:
        client.remove_container(made["Id"], force=True)


@contextmanager
def listener(host: str) -> Iterator[int]:
    """A service of the host that greets whoever connects; yields its port."""
    with socket.create_server((host, 0)) as server:
        thread = Thread(target=lambda: greet(server.accept), daemon=True)
        thread.start()
        port: int = server.getsockname()[1]
        assert read_from("127.0.0.1", port) == "host"
        yield port


def greet(accept: Callable[[], tuple[socket.socket, object]]) -> None:
    try:
        while True:
            connection, _ = accept()
            with connection:
                connection.sendall(b"host\n")
    except OSError:
        return
