"""What users do, against every way the server runs: standalone, and separate services over real infrastructure."""

import io
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.databases import PostgresServer
from tests.e2e.client import Door, door_of, zip_of
from tests.e2e.compose import compose_system
from tests.e2e.images import UNTIL_TOLD, echo_image, script_image
from tests.e2e.systems import System, leftovers, services_system, standalone_system, wait_for
from tests.gpu_host import gpu_or
from tests.services import require_docker, require_rabbitmq

GPU_UUID = gpu_or("GPU-5b9a2f0e-0000-4000-8000-000000000001")


@pytest.fixture(scope="module", params=["standalone", "services", "compose"])
def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    require_docker()
    folder = tmp_path_factory.mktemp("system")
    if request.param == "standalone":
        with standalone_system(folder, gpu_uuid=GPU_UUID) as running:
            yield running
        return
    if request.param == "compose":
        with compose_system(folder, gpu_uuid=GPU_UUID) as running:
            yield running
        return
    require_rabbitmq()
    postgres: PostgresServer = request.getfixturevalue("postgres")
    name = postgres.create()
    with services_system(folder, postgres.url_of(name), gpu_uuid=GPU_UUID) as running:
        yield running
    postgres.drop(name)


@pytest.fixture
def door(system: System) -> Iterator[Door]:
    with door_of(system.url, system.verify) as door:
        yield door
    wait_for(lambda: not leftovers(system), 20, lambda: f"left: {leftovers(system)}")


def test_folders_and_names_come_back(door: Door) -> None:
    files = {"a.txt": b"one", "deep/er/b.bin": bytes(range(256)) * 100, "ümläut 名.txt": b"x"}
    model = door.add_model(echo_image())
    assert door.result(door.submit(model, files)) == files


def test_the_calls_of_the_customers_readme_work_with_requests(door: Door, tmp_path: Path) -> None:
    path = tmp_path / "input.zip"
    path.write_bytes(zip_of({"x": b"1"}))
    with path.open("rb") as r:
        res = requests.post(
            url=f"{door.url}/api/tasks/",
            params={
                "container_tag": echo_image(),
                "human_readable_id": "readme-model",
                "description": "This model is a test inference model",
                "model_available": True,
                "use_gpu": True,
            },
            files={"zip_file": r},
            timeout=30,
            verify=door.verify,
        )
    assert res.status_code == 200
    with path.open("rb") as r:
        res = requests.post(
            url=f"{door.url}/api/tasks/",
            params={"human_readable_id": "readme-model"},
            files={"zip_file": r},
            timeout=30,
            verify=door.verify,
        )
    uid = res.json()
    assert requests.get(f"{door.url}/api/tasks/{uid}", timeout=30, verify=door.verify).status_code in (551, 200)

    def poll() -> bool:
        res = requests.get(f"{door.url}/api/tasks/{uid}", timeout=30, verify=door.verify)
        assert res.status_code in (551, 200), res.text
        return res.ok

    wait_for(poll, 60)


def test_the_model_folder_is_read_only_and_used_again(door: Door) -> None:
    image = script_image("cat /model/weights/w.txt > /output/w.txt; touch /model/x 2>>/output/error; true")
    model = door.add_model(image, model_zip=zip_of({"weights/w.txt": b"42"}))
    for _ in range(2):
        result = door.result(door.submit(model, {"i": b""}))
        assert result["w.txt"] == b"42"
        assert b"ead-only" in result["error"]


def test_a_failed_run_says_its_exit_code_and_shows_its_log(door: Door) -> None:
    uid = door.submit(door.add_model(script_image("echo about to fail; echo bad >&2; exit 3")), {"i": b""})
    answer = door.ended(uid)
    assert answer.status_code == 552
    body = answer.json()
    assert (body["reason"], body["exit_code"]) == ("exit_code", 3)
    assert "about to fail" in body["log_tail"]
    assert "bad" in body["log_tail"]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("true", "no_output"),
        ("ln -s /etc/passwd /output/p", "output_rejected"),
        ("mkfifo /output/f; echo x > /output/x", "output_rejected"),
    ],
)
def test_an_output_that_cannot_be_taken_says_why(door: Door, script: str, reason: str) -> None:
    answer = door.ended(door.submit(door.add_model(script_image(script)), {"i": b""}))
    assert (answer.status_code, answer.json()["reason"]) == (552, reason)


def test_too_much_memory_is_told_as_such(door: Door) -> None:
    model = door.add_model(script_image("tail /dev/zero"), memory_limit_bytes=32 * 1024**2)
    assert door.ended(door.submit(model, {"i": b""})).json()["reason"] == "out_of_memory"


def test_a_run_over_its_time_limit_is_ended(door: Door) -> None:
    model = door.add_model(script_image(f"echo started; {UNTIL_TOLD}"), time_limit_s=2)
    body = door.ended(door.submit(model, {"i": b""})).json()
    assert body["reason"] == "time_limit"
    assert "2 s" in body["detail"]


def test_an_absent_image_is_told_as_such(door: Door) -> None:
    model = door.add_model("no-such-image:1", pull_policy="never")
    body = door.ended(door.submit(model, {"i": b""})).json()
    assert body["reason"] == "image_not_found"
    assert "no-such-image:1" in body["detail"]


def test_an_input_with_a_wrong_checksum_fails_as_rejected(door: Door) -> None:
    broken = zip_of({"a.txt": b"some content that is stored"}, compression=zipfile.ZIP_STORED).replace(
        b"some content", b"sOme content"
    )
    uid = door.submit_zip(door.add_model(echo_image()), broken)
    body = door.ended(uid).json()
    assert body["reason"] == "input_rejected"
    assert "a.txt" in body["detail"]


def test_an_unknown_model_is_550_and_an_unknown_task_554(door: Door) -> None:
    answer = door.http.post("/api/tasks/", params={"human_readable_id": "nobody"}, content=zip_of({}))
    assert (answer.status_code, answer.json()["error"]) == (550, "ModelNotFound")
    assert door.http.get(f"/api/tasks/{'0' * 64}").status_code == 554
    assert door.http.get(f"/api/tasks/{'0' * 64}/status").status_code == 404


def test_a_running_task_is_cancelled(door: Door) -> None:
    uid = door.submit(door.add_model(script_image(f"echo up; {UNTIL_TOLD}")), {"i": b""})
    door.wait_status(uid, "running")
    assert door.http.post(f"/api/tasks/{uid}/cancel").json()["cancel_requested"] is True
    answer = door.ended(uid, seconds=60)
    assert (answer.status_code, answer.json()["status"], answer.json()["reason"]) == (552, "cancelled", "cancelled")


def test_a_waiting_task_is_cancelled_at_once_and_a_deleted_one_is_gone(door: Door) -> None:
    model = door.add_model(script_image(UNTIL_TOLD))
    busy = door.submit(model, {"i": b""})
    door.wait_status(busy, "running")
    waiting = door.submit(model, {"i": b""})
    assert door.status(waiting)["position"] == 0
    assert door.http.post(f"/api/tasks/{waiting}/cancel").json()["status"] == "cancelled"
    for uid in (waiting, busy, busy):
        assert door.http.delete(f"/api/tasks/{uid}").status_code == 204
    assert door.http.get(f"/api/tasks/{busy}").status_code == 554


def test_the_log_is_followed_while_the_run_writes_it(door: Door) -> None:
    model = door.add_model(script_image("for i in 1 2 3 4; do echo line $i; sleep 0.7; done; touch /output/done"))
    uid = door.submit(model, {"i": b""})
    seen_before_the_end = b""
    with door.http.stream("GET", f"/api/tasks/{uid}/logs", params={"follow": "true"}) as answer:
        pieces = []
        for piece in answer.iter_bytes():
            pieces.append(piece)
            if not seen_before_the_end:
                seen_before_the_end = piece
                assert door.status(uid)["status"] == "running"
    assert b"".join(pieces) == b"line 1\nline 2\nline 3\nline 4\n"


def test_a_gpu_task_sees_the_one_gpu_and_another_sees_none(door: Door, system: System) -> None:
    image = script_image("echo gpu=$NVIDIA_VISIBLE_DEVICES > /output/g")
    with_gpu = door.add_model(image, use_gpu=True)
    without = door.add_model(image, use_gpu=False)
    assert door.result(door.submit(with_gpu, {"i": b""}))["g"] == f"gpu={GPU_UUID}\n".encode()
    assert door.result(door.submit(without, {"i": b""}))["g"] in (b"gpu=\n", b"gpu=void\n")


def test_a_compatible_model_runs_as_the_user_of_its_image(door: Door) -> None:
    image = script_image("id -u > /output/u; (touch /written && echo yes > /output/root) || true")
    assert door.result(door.submit(door.add_model(image, isolation="compatible"), {"i": b""})) == {
        "u": b"0\n",
        "root": b"yes\n",
    }
    assert door.result(door.submit(door.add_model(image), {"i": b""}))["u"] != b"0\n"


def test_the_output_can_be_resumed_by_range(door: Door) -> None:
    uid = door.submit(door.add_model(echo_image()), {"data": bytes(range(256)) * 4000})
    whole = door.ended(uid)
    etag, url = whole.headers["etag"], f"/api/tasks/{uid}/output"
    rest = door.http.get(url, headers={"Range": "bytes=1000-", "If-Range": etag})
    assert (rest.status_code, rest.content) == (206, whole.content[1000:])
    assert door.http.head(url).headers["content-length"] == str(len(whole.content))
    assert door.http.get(url, headers={"If-None-Match": etag}).status_code == 304


def test_the_same_idempotency_key_answers_the_same_task(door: Door) -> None:
    model, data = door.add_model(echo_image()), zip_of({"a": b"1"})
    first, again = (door.submit_zip(model, data, key="k-1") for _ in range(2))
    assert first == again
    other = door.http.post(
        "/api/tasks/",
        params={"human_readable_id": model},
        content=zip_of({"a": b"2"}),
        headers={"Idempotency-Key": "k-1", "Content-Type": "application/zip"},
    )
    assert other.status_code == 409
    door.ended(first)


def test_a_consumer_that_is_killed_adopts_its_container_and_delivers_once(door: Door, system: System) -> None:
    model = door.add_model(script_image("echo begun; sleep 4; cat /proc/sys/kernel/random/uuid > /output/id"))
    uid = door.submit(model, {"i": b""})
    door.wait_status(uid, "running")
    before = leftovers(system)
    system.consumer.kill()
    assert leftovers(system) == before, "the container goes on without its consumer"
    system.consumer.start()
    system.wait_ready()
    result = door.result(uid, seconds=90)
    status = door.status(uid)
    assert len(result["id"]) == 37
    assert status["attempt"] == 1, "the same container was adopted, not a second one started"
    assert "adopting the run" in system.logs()


def test_a_container_that_ended_while_its_consumer_was_down_is_delivered(door: Door, system: System) -> None:
    uid = door.submit(door.add_model(script_image("sleep 2; echo x > /output/x")), {"i": b""})
    door.wait_status(uid, "running")
    system.consumer.kill()
    time.sleep(3)  # the run's own length: nothing observable happens at its end
    system.consumer.start()
    system.wait_ready()
    assert door.result(uid, seconds=90) == {"x": b"x\n"}
    assert door.status(uid)["attempt"] == 1


def test_a_consumer_killed_while_it_ends_a_run_still_says_why(door: Door, system: System) -> None:
    model = door.add_model(script_image("trap '' TERM; while true; do sleep 1; done"), time_limit_s=1)
    uid = door.submit(model, {"i": b""})
    door.wait_status(uid, "running")
    wait_for(lambda: list((system.work_dir / "attempts").glob(f"*/{uid}-*/verdict.json")), 30, system.logs)
    system.consumer.kill()
    system.consumer.start()
    system.wait_ready()
    assert door.ended(uid, seconds=90).json()["reason"] == "time_limit"


def test_queued_tasks_survive_a_restart(door: Door, system: System) -> None:
    slow = door.submit(door.add_model(script_image("sleep 2; touch /output/x")), {"i": b""})
    model = door.add_model(echo_image())
    queued = [door.submit(model, {"n": str(n).encode()}) for n in range(3)]
    for process in reversed(system.processes):
        process.end()
    for process in system.processes:
        process.start()
    system.wait_ready()
    assert door.result(slow, seconds=90) == {"x": b""}
    assert [door.result(uid, seconds=90)["n"] for uid in queued] == [b"0", b"1", b"2"]


def test_many_tasks_each_run_once(door: Door) -> None:
    model = door.add_model(echo_image())
    uids = [door.submit(model, {"n": str(n).encode()}) for n in range(12)]
    assert [door.result(uid, seconds=120)["n"] for uid in uids] == [str(n).encode() for n in range(12)]
    assert {door.status(uid)["attempt"] for uid in uids} == {1}


def test_an_upload_that_breaks_off_leaves_nothing(door: Door, system: System) -> None:
    model = door.add_model(echo_image())

    def broken() -> Iterator[bytes]:
        yield zip_of({"a": b"x" * 100_000})[:60_000]
        raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        door.http.post(
            "/api/tasks/",
            params={"human_readable_id": model},
            content=broken(),
            headers={"Content-Type": "application/zip"},
        )
    wait_for(lambda: not list((system.data_dir / "archives/tmp").iterdir()), 10)


def test_a_body_that_is_no_zip_is_refused_before_there_is_a_task(door: Door) -> None:
    model = door.add_model(echo_image())
    data = io.BytesIO(b"this is no zip")
    answer = door.http.post("/api/tasks/", params={"human_readable_id": model}, files={"zip_file": data})
    assert (answer.status_code, answer.json()["error"]) == (422, "InvalidArchive")
