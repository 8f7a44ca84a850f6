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

LEASE_S = 60
# Different in every run, and over while its host is cut off.
RUN = "cat /proc/sys/kernel/random/uuid > /output/run; sleep 15"
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
# Swarm calls a node down after three heartbeats; when that node is back it stops what ran there and starts it again.
@pytest.mark.parametrize(("consumer", "heartbeat_s"), [("is replaced", 5), ("survives", 60)])
def test_the_task_of_a_host_that_is_cut_off_finishes_elsewhere_and_its_late_result_is_refused(
    swarm: Swarm, door: Door, consumer: str, heartbeat_s: int
) -> None:
    manager, worker = swarm.manager, swarm.worker
    manager.docker("swarm", "update", "--dispatcher-heartbeat", f"{heartbeat_s}s")
    image = script_image(RUN)
    worker.load(image)
    # Nodes learn of another interval with their next heartbeat; the one before is the default of 5 s.
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
        wait_for(lambda: door.status(uid)["status"] == "finished", 2 * LEASE_S, swarm.describe)
        assert swarm.claims(uid) == [swarm.consumer(worker), swarm.consumer(manager)]
        result = door.result(uid)
        assert worker.of_task(uid), "the lost attempt is gone before its host could be told"
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
