"""stack.yaml on two hosts: tasks run on the other one, and what happens to them when it is cut off."""

import re
import time
from collections.abc import Iterator

import pytest

from tests.e2e.client import Door, door_of
from tests.e2e.images import ECHO_TAG, script_image
from tests.e2e.swarm import Swarm, swarm_stack
from tests.e2e.systems import is_ready, wait_for
from tests.services import require_docker

# Different in every run, and over while its host is cut off.
RUN = "cat /proc/sys/kernel/random/uuid > /output/run; sleep 8"
FILES = {"a.txt": b"one", "deep/b.bin": bytes(range(256))}
REFUSED = re.compile("the attempt was lost|the attempt is dropped|that lost its task")


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    require_docker()
    with swarm_stack(tmp_path_factory.mktemp("swarm")) as deployed:
        deployed.allow_consumers(deployed.worker)
        wait_for(lambda: is_ready(deployed.url, deployed.verify), 240, deployed.describe)
        yield deployed


@pytest.fixture
def door(swarm: Swarm) -> Iterator[Door]:
    with door_of(swarm.url, swarm.verify) as door:
        yield door


def check_worker_runs_tasks(swarm: Swarm, door: Door) -> None:
    """There must be no other consumer."""
    uid = door.submit(door.add_model(ECHO_TAG), FILES)
    wait_for(lambda: door.status(uid)["status"] == "finished", 120, swarm.describe)
    assert door.result(uid) == FILES
    assert swarm.claims(uid) == [swarm.consumer(swarm.worker)]


@pytest.mark.timeout(600)
# Swarm calls a node down after three heartbeats, of 5 s by default; when that node is back it stops what ran there and
# starts it again.
@pytest.mark.parametrize("consumer", ["is replaced", "survives"])
def test_the_task_of_a_host_that_is_cut_off_finishes_elsewhere_and_its_late_result_is_refused(
    swarm: Swarm, door: Door, consumer: str
) -> None:
    manager, worker = swarm.manager, swarm.worker
    image = script_image(RUN)
    for host in (manager, worker):
        host.load(image)
    check_worker_runs_tasks(swarm, door)
    if consumer == "survives":
        manager.docker("swarm", "update", "--dispatcher-heartbeat", "60s")
        # Nodes learn of another interval with their next heartbeat.
        learned_at = time.monotonic() + 10
        while time.monotonic() < learned_at:
            check_worker_runs_tasks(swarm, door)
    before = swarm.consumers(worker)

    uid = door.submit(door.add_model(image), {"i": b""})
    wait_for(lambda: worker.runs(uid, "running"), 60, swarm.describe)
    worker.cut_off()
    try:
        swarm.allow_consumers(manager)
        # Its run goes on there, ends, and is kept until somebody takes the result.
        wait_for(lambda: worker.runs(uid, "exited"), 60, swarm.describe)
        assert door.status(uid)["attempt"] == 1
        if consumer == "is replaced":
            wait_for(lambda: swarm.state(worker) == "down", 60, swarm.describe)
        # Until here its lease holds: that it runs out by itself is shown elsewhere.
        swarm.pass_time(uid)
        wait_for(lambda: door.status(uid)["status"] == "finished", 60, swarm.describe)
        assert swarm.claims(uid) == [swarm.consumer(worker), swarm.consumer(manager)]
        result = door.result(uid)
        assert worker.of_task(uid), "the lost attempt is gone before its host could be told"
        assert swarm.state(worker) == ("down" if consumer == "is replaced" else "ready")
    finally:
        worker.reconnect()

    wait_for(lambda: not worker.of_task(uid), 180, swarm.describe)
    if consumer == "survives":
        assert swarm.consumers(worker) == before
    else:
        # Which of the two finds the attempt lost is a matter of seconds.
        wait_for(lambda: swarm.consumers(worker) not in ("", before), 60, swarm.describe)
    lines = [line for line in swarm.consumer_logs(worker).splitlines() if f"task={uid}" in line]
    assert any(REFUSED.search(line) for line in lines), lines
    status = door.status(uid)
    assert (status["status"], status["attempt"]) == ("finished", 2)
    assert door.result(uid) == result
    assert len(swarm.outputs(uid)) == 1
    assert not manager.of_task(uid)

    swarm.forbid_consumers(manager)
    wait_for(lambda: not swarm.consumers(manager), 60, swarm.describe)
    check_worker_runs_tasks(swarm, door)
