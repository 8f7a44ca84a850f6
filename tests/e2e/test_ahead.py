"""A consumer prepares the next task while one runs and the last one is delivered, and keeps one run at a time."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.client import DoorClient, door_of
from tests.e2e.images import UNTIL_TOLD, echo_image, script_image
from tests.e2e.processes import Process
from tests.e2e.systems import System, containers, leftovers, standalone_system
from tests.services import require_docker
from tests.waiting import START_S, wait_until
from tests.zips import make_zip

GPU_UUID = "GPU-5b9a2f0e-0000-4000-8000-000000000002"


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    require_docker()
    with standalone_system(tmp_path, gpu_uuid=GPU_UUID) as system:
        yield system
        wait_until(lambda: not leftovers(system), lambda: f"left: {leftovers(system)}")


@pytest.fixture
def door(system: System) -> Iterator[DoorClient]:
    with door_of(system.url) as door:
        yield door


def inputs(system: System, uid: str) -> list[Path]:
    """The unpacked input of a task, where its consumer has it."""
    return [path for path in system.work_dir.glob(f"attempts/*/{uid}-*/input/*") if path.is_file()]


def restart(system: System, **environment: str) -> None:
    """Start the server anew; what fails there on purpose is only what is said here."""
    assert isinstance(system.consumer, Process)
    system.consumer.kill()
    system.consumer.environment.pop("FAIL_AT", None)
    system.consumer.environment.update(environment)
    system.consumer.start()
    system.wait_ready()


def test_the_next_input_is_there_before_the_run_before_it_ends(system: System, door: DoorClient) -> None:
    first = door.submit(door.add_model(script_image(UNTIL_TOLD), use_gpu=True), {"i": b""})
    door.wait_status(first, "running")
    second = door.submit(door.add_model(echo_image(), use_gpu=True), {"a.txt": b"ahead"})
    wait_until(lambda: [path.read_bytes() for path in inputs(system, second)] == [b"ahead"], within_s=START_S)
    told = door.status(second)
    assert (told["status"], told["waits_for"]) == ("leased", "free_consumer")
    assert told["wait_detail"].endswith("prepares it while it runs another task")
    assert len(containers(system)) == 1
    assert door.http.delete(f"/api/tasks/{first}").is_success
    assert door.result(second) == {"a.txt": b"ahead"}
    assert door.status(second)["attempt"] == 1


def test_what_is_prepared_gives_way_to_what_is_more_urgent(system: System, door: DoorClient) -> None:
    model = door.add_model(script_image(UNTIL_TOLD), use_gpu=True)
    first = door.submit(model, {"i": b""})
    answer = door.http.post(
        "/api/tasks/",
        params={"human_readable_id": model, "priority": -1},
        files={"zip_file": ("i.zip", make_zip({"i": b""}))},
    )
    second = answer.raise_for_status().json()
    wait_until(lambda: inputs(system, second), within_s=START_S)
    urgent = door.submit(model, {"i": b""})
    assert door.http.delete(f"/api/tasks/{first}").is_success
    door.wait_status(urgent, "running")
    for uid in (urgent, second):
        assert door.http.delete(f"/api/tasks/{uid}").is_success


def test_a_run_waits_for_no_delivery_and_a_kill_loses_none_of_the_three(system: System, door: DoorClient) -> None:
    restart(system, FAIL_AT="deliver.begun:hang")
    model = door.add_model(echo_image(), use_gpu=True)
    uids = [door.submit(model, {"n": str(number).encode()}) for number in range(3)]
    # The first one's delivery stands still; the second one has run, and the third one is all there.
    wait_until(lambda: [door.status(uid)["phase"] for uid in uids[:2]] == ["delivering"] * 2, within_s=START_S)
    wait_until(lambda: inputs(system, uids[2]), within_s=START_S)
    assert door.status(uids[2])["status"] == "leased"
    restart(system)
    for number, uid in enumerate(uids):
        assert door.result(uid) == {"n": str(number).encode()}
    # What had run did not run again.
    assert [door.status(uid)["attempt"] for uid in uids[:2]] == [1, 1]
