"""stack.yaml on two hosts: tasks and replicas on the other one, and what becomes of them when it is cut off."""

import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest

from tests.e2e.client import DoorClient, door_of
from tests.e2e.grpc_door import GrpcDoor, application
from tests.e2e.images import ECHO_TAG, call_server_image, script_image
from tests.e2e.inside import ASK_WITH_TOKEN, TRY
from tests.e2e.swarm import Swarm, swarm_stack
from tests.e2e.systems import is_ready
from tests.services import require_docker
from tests.waiting import START_S, check_for, wait_until

pytestmark = pytest.mark.long
# Different in every run, and over while its host is cut off.
RUN = "cat /proc/sys/kernel/random/uuid > /output/run; sleep 8"
FILES = {"a.txt": b"one", "deep/b.bin": bytes(range(256))}
REFUSED = re.compile("the attempt is dropped|lost its lease")


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    require_docker()
    with swarm_stack(tmp_path_factory.mktemp("swarm")) as deployed:
        deployed.allow_consumers(deployed.worker)
        wait_until(lambda: is_ready(deployed.url, deployed.verify), deployed.logs, within_s=START_S)
        yield deployed


@pytest.fixture
def door(swarm: Swarm) -> Iterator[DoorClient]:
    with door_of(swarm.url, swarm.verify) as door:
        yield door


def check_worker_runs_tasks(swarm: Swarm, door: DoorClient) -> None:
    """There must be no other consumer."""
    uid = door.submit(door.add_model(ECHO_TAG), FILES)
    wait_until(lambda: door.status(uid)["status"] == "finished", swarm.logs)
    assert door.result(uid) == FILES
    assert swarm.claims(uid) == [swarm.consumer(swarm.worker)]


# Swarm calls a node down after three heartbeats, of 5 s by default; when that node is back it stops what ran there and
# starts it again.
@pytest.mark.parametrize("consumer", ["is replaced", "survives"])
def test_the_task_of_a_host_that_is_cut_off_finishes_elsewhere_and_its_late_result_is_refused(
    swarm: Swarm, door: DoorClient, consumer: str
) -> None:
    manager, worker = swarm.manager, swarm.worker
    image = script_image(RUN)
    for host in (manager, worker):
        host.load(image)
    check_worker_runs_tasks(swarm, door)
    if consumer == "survives":
        manager.docker("swarm", "update", "--dispatcher-heartbeat", "60s")
        # Nodes learn of another interval with their next heartbeat.
        check_for(10, lambda: swarm.state(worker) == "ready", "the worker is ready")
    before = swarm.consumers(worker)

    uid = door.submit(door.add_model(image), {"i": b""})
    wait_until(lambda: worker.runs(uid, "running"), swarm.logs)
    worker.cut_off()
    try:
        swarm.allow_consumers(manager)
        # Its run goes on there, ends, and is kept until somebody takes the result.
        wait_until(lambda: worker.runs(uid, "exited"), swarm.logs)
        assert door.status(uid)["attempt"] == 1
        if consumer == "is replaced":
            wait_until(lambda: swarm.state(worker) == "down", swarm.logs)
        # Until here its lease holds: that it runs out by itself is shown elsewhere.
        swarm.pass_time(uid)
        wait_until(lambda: door.status(uid)["status"] == "finished", swarm.logs)
        assert swarm.claims(uid) == [swarm.consumer(worker), swarm.consumer(manager)]
        result = door.result(uid)
        assert worker.of_task(uid), "the lost attempt is gone before its host could be told"
        assert swarm.state(worker) == ("down" if consumer == "is replaced" else "ready")
    finally:
        worker.reconnect()

    wait_until(lambda: not worker.of_task(uid), swarm.logs, within_s=START_S)
    if consumer == "survives":
        assert swarm.consumers(worker) == before
    else:
        # Which of the two finds the attempt lost is a matter of seconds.
        wait_until(lambda: swarm.consumers(worker) not in ("", before), swarm.logs)
    lines = [line for line in swarm.consumer_logs(worker).splitlines() if f"task={uid}" in line]
    assert any(REFUSED.search(line) for line in lines), lines
    status = door.status(uid)
    assert (status["status"], status["attempt"]) == ("finished", 2)
    assert door.result(uid) == result
    assert len(swarm.outputs(uid)) == 1
    assert not manager.of_task(uid)

    swarm.forbid_consumers(manager)
    wait_until(lambda: not swarm.consumers(manager), swarm.logs)
    check_worker_runs_tasks(swarm, door)


@pytest.fixture
def both_hosts(swarm: Swarm, door: DoorClient) -> Iterator[GrpcDoor]:
    """The gRPC door, with consumers on both hosts."""
    image = call_server_image()
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda host: host.load(image), (swarm.manager, swarm.worker)))
    swarm.allow_consumers(swarm.manager)
    wait_until(lambda: asks_for_replicas(swarm), swarm.logs)
    stack = GrpcDoor(door, swarm)
    yield stack
    stack.clear()
    swarm.forbid_consumers(swarm.manager)
    wait_until(lambda: not swarm.consumers(swarm.manager), swarm.logs)


def asks_for_replicas(swarm: Swarm) -> bool:
    """Whether the consumer that runs on the manager now got so far; earlier ones do not count."""
    running = swarm.consumers(swarm.manager)
    return bool(running) and "waits for replicas" in swarm.manager.docker("logs", running, check=False)


@contextmanager
def unfailing_load(channel: grpc.Channel, model: str) -> Iterator[None]:
    """Calls from several threads while the block is open; each must be answered."""
    stopped = threading.Event()
    sleep = channel.unary_unary("/calls.Echo/Sleep")

    def load() -> int:
        count = 0
        while not stopped.is_set():
            assert sleep(b"0.2", metadata=application(model), timeout=60) == b"0.2"
            count += 1
        return count

    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(load) for _ in range(8)]
        try:
            yield
        finally:
            stopped.set()
    assert all(call.result() for call in calls)


def hosts_of(stack: GrpcDoor, model: str) -> dict[str, str]:
    """The consumer of each replica that is ready, by its uid."""
    return {row["uid"]: row["consumer"] for row in stack.replicas(model)}


def test_replicas_on_two_hosts_reach_the_gateway_and_nothing_else(swarm: Swarm, both_hosts: GrpcDoor) -> None:
    model = both_hosts.deploy(call_server_image(), replicas_min=2, replicas_max=2, idle_timeout_s=1)
    inside, closed = ("grpc-gateway", 9002), [("grpc-gateway", 9000), ("grpc-gateway", 9001), ("traefik", 443)]
    closed += [(row["address"].rpartition(":")[0], 9000) for row in both_hosts.replicas(model)]
    for host in (swarm.manager, swarm.worker):
        (replica,) = host.docker("ps", "-q", "--filter", "label=inference-server.replica").split()
        run = ("exec", replica, "python", "-c")
        own = host.docker(*run, "import socket; print(socket.gethostbyname(socket.gethostname()))")
        targets = [inside, *(target for target in closed if target[0] != own)]
        assert len(targets) == len(closed), "its own address is on the network, and the other replica's"
        reached = json.loads(host.docker(*run, TRY, json.dumps(targets)))
        assert reached == ["reached", *["refused"] * (len(targets) - 1)]
        assert model in host.docker(*run, ASK_WITH_TOKEN)
    both_hosts.undeploy(model)


def test_replicas_on_two_hosts_share_the_calls_and_the_one_whose_host_is_cut_off_is_replaced(
    swarm: Swarm, both_hosts: GrpcDoor
) -> None:
    stack, manager, worker = both_hosts, swarm.manager, swarm.worker
    model = stack.deploy(call_server_image(), replicas_min=2, replicas_max=2, idle_timeout_s=1)
    both = sorted(swarm.consumer(host) for host in (manager, worker))
    assert sorted(hosts_of(stack, model).values()) == both

    with stack.channel() as channel:
        who, sleep = (channel.unary_unary(f"/calls.Echo/{name}") for name in ("Who", "Sleep"))
        spread = Counter(who(b"", metadata=application(model), timeout=60) for _ in range(400))
        assert len(spread) == 2
        assert min(spread.values()) >= 160, spread
        sticky = {}
        for multiplexed in map(str, range(16)):
            metadata = application(model, ("multiplexed_model_id", multiplexed))
            (uid,) = {who(b"", metadata=metadata, timeout=60) for _ in range(10)}
            sticky[uid.decode()] = metadata
        assert set(sticky) == set(hosts_of(stack, model))
        # Larger than any packet of the network between the hosts.
        large = bytes(range(256)) * 8192
        for metadata in sticky.values():
            assert channel.unary_unary("/calls.Echo/Call")(large, metadata=metadata, timeout=60) == large

        with unfailing_load(channel, model):
            stack.redeploy(model, replicas_max=1, idle_timeout_s=1)
            wait_until(lambda: live(stack, model) == 1, swarm.logs)
        stack.redeploy(model, replicas_min=2, replicas_max=2, idle_timeout_s=1)
        assert sorted(hosts_of(stack, model).values()) == both

        (kept,) = (uid for uid, consumer in hosts_of(stack, model).items() if consumer == swarm.consumer(manager))
        (lost,) = set(hosts_of(stack, model)) - {kept}
        metadata = next(
            metadata
            for metadata in (application(model, ("multiplexed_model_id", str(number))) for number in range(64))
            if who(b"", metadata=metadata, timeout=60) == lost.encode()
        )
        calls = [sleep.future(b"3600", metadata=metadata, timeout=1000)]
        sleepers = channel.unary_unary("/calls.Echo/Sleepers")
        wait_until(lambda: sleepers(b"", metadata=metadata, timeout=60) == b"1")
        worker.cut_off()
        try:
            calls.append(who.future(b"", metadata=metadata, timeout=1000))
            assert [call.code() for call in calls] == [grpc.StatusCode.UNAVAILABLE] * 2
            for asked in (metadata, application(model)):
                assert {who(b"", metadata=asked, timeout=60) for _ in range(20)} == {kept.encode()}
            swarm.pass_time(lost, "replicas")
            wait_until(lambda: (lost, "lost") in reasons(stack, model), swarm.logs)
            stack.wait_ready(model, 2)
            assert set(hosts_of(stack, model).values()) == {swarm.consumer(manager)}
            wait_until(lambda: len({who(b"", metadata=application(model), timeout=60) for _ in range(20)}) == 2)
            assert worker.of_replica(lost), "the lost replica is gone before its host could be told"
        finally:
            worker.reconnect()
    wait_until(lambda: not worker.of_replica(lost), swarm.logs, within_s=START_S)


def live(stack: GrpcDoor, model: str) -> int:
    return sum(row["status"] != "ended" for row in stack.show(model)["replicas"])


def reasons(stack: GrpcDoor, model: str) -> list[tuple[str, str]]:
    """The replicas that ended, and why."""
    return [(row["uid"], row["reason"]) for row in stack.replicas(model, "ended")]
