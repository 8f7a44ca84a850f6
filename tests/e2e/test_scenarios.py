"""What users do, against every way the server runs: standalone, and separate services over real infrastructure.

`make test` has two of the ways: the services without containers of their own are those of the Compose stack, and
tests/e2e/test_chaos.py, test_outages.py and test_failpoints.py break them besides.
"""

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from urllib.parse import quote

import docker
import httpx
import pytest
import requests

from standalone.server import REPLICA_NETWORK
from tests.databases import PostgresServer
from tests.e2e.client import DoorClient, door_of
from tests.e2e.compose import compose_system
from tests.e2e.images import UNTIL_TOLD, echo_image, script_image
from tests.e2e.inside import run_inside
from tests.e2e.systems import System, containers, leftovers, services_system, standalone_system, trust
from tests.e2e.warm_models import MODEL, labelled_containers, replicas
from tests.gpu_host import gpu_or
from tests.integration.image_registry import serve_slow_image
from tests.integration.replica_harness import backend_image
from tests.services import require_docker, require_rabbitmq
from tests.waiting import repeat_until_told, wait_until
from tests.zips import make_zip

SAY = """
import grpc
with grpc.insecure_channel("127.0.0.1:9100") as channel:
    print(channel.unary_unary("/tests.Echo/Say")(b"alone", timeout=60))
"""
GPU_UUID = gpu_or("GPU-5b9a2f0e-0000-4000-8000-000000000001")


SYSTEMS = ["standalone", "compose", pytest.param("services", marks=pytest.mark.long)]


# For what one private API decides, or one consumer in its own process: behind any door it is the same.
EVERYWHERE_IF_LONG = pytest.mark.parametrize(
    "system",
    ["standalone", *(pytest.param(name, marks=pytest.mark.long) for name in ("compose", "services"))],
    indirect=True,
)


@pytest.fixture(scope="module", params=SYSTEMS)
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
def door(system: System) -> Iterator[DoorClient]:
    with door_of(system.url, system.verify) as door:
        yield door
    wait_until(lambda: not leftovers(system), lambda: f"left: {leftovers(system)}")


def test_folders_and_names_come_back(door: DoorClient) -> None:
    files = {"a.txt": b"one", "deep/er/b.bin": bytes(range(256)) * 100, "ümläut 名.txt": b"x"}
    model = door.add_model(echo_image())
    assert door.result(door.submit(model, files)) == files


def test_the_calls_of_the_customers_readme_work_with_requests(door: DoorClient, tmp_path: Path) -> None:
    path = tmp_path / "input.zip"
    path.write_bytes(make_zip({"x": b"1"}))
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
            timeout=60,
            verify=door.verify,
        )
    assert res.status_code == 200
    with path.open("rb") as r:
        res = requests.post(
            url=f"{door.url}/api/tasks/",
            params={"human_readable_id": "readme-model"},
            files={"zip_file": r},
            timeout=60,
            verify=door.verify,
        )
    uid = res.json()
    assert requests.get(f"{door.url}/api/tasks/{uid}", timeout=60, verify=door.verify).status_code in (551, 200)

    def poll() -> bool:
        res = requests.get(f"{door.url}/api/tasks/{uid}", timeout=60, verify=door.verify)
        assert res.status_code in (551, 200), res.text
        return res.ok

    wait_until(poll)


def test_the_model_folder_is_read_only_and_used_again(door: DoorClient) -> None:
    image = script_image("cat /model/weights/w.txt > /output/w.txt; touch /model/x 2>>/output/error; true")
    model = door.add_model(image, model_zip=make_zip({"weights/w.txt": b"42"}))
    for _ in range(2):
        result = door.result(door.submit(model, {"i": b""}))
        assert result["w.txt"] == b"42"
        assert b"ead-only" in result["error"]


def test_a_failed_run_says_its_exit_code_and_shows_its_log(door: DoorClient) -> None:
    uid = door.submit(door.add_model(script_image("echo about to fail; echo bad >&2; exit 3")), {"i": b""})
    answer = door.ended(uid)
    assert answer.status_code == 552
    body = answer.json()
    assert (body["reason"], body["exit_code"]) == ("exit_code", 3)
    assert "about to fail" in body["log_tail"]
    assert "bad" in body["log_tail"]
    # Built here, so that no registry has given it a digest.
    (attempt,) = door.http.get(f"/api/tasks/{uid}/attempts").json()
    assert attempt["image"] == door.status(uid)["image"]
    assert attempt["image"].startswith("sha256:")


@EVERYWHERE_IF_LONG
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("true", "no_output"),
        ("ln -s /etc/passwd /output/p", "output_rejected"),
    ],
)
def test_an_output_that_cannot_be_taken_says_why(door: DoorClient, script: str, reason: str) -> None:
    answer = door.ended(door.submit(door.add_model(script_image(script)), {"i": b""}))
    assert (answer.status_code, answer.json()["reason"]) == (552, reason)


@EVERYWHERE_IF_LONG
def test_what_cannot_be_sent_is_left_out_with_a_warning_unless_the_model_is_strict(door: DoorClient) -> None:
    image = script_image("mkfifo /output/pipe; echo x > /output/T1.nii; ln -s T1.nii /output/t1.nii")
    uid = door.submit(door.add_model(image), {"i": b""})
    assert door.result(uid) == {"T1.nii": b"x\n", "t1.nii": b"x\n"}
    clash = "'T1.nii' and 't1.nii' name the same file where case is ignored"
    status = door.status(uid)
    assert (status["status"], status["warning_count"]) == ("finished", 2)
    assert status["warnings"] == ["'pipe' was left out: a FIFO", clash]
    assert door.http.get(f"/api/tasks/{uid}").headers["x-task-warnings"] == "2"
    answer = door.ended(door.submit(door.add_model(image, strict_output=True), {"i": b""}))
    assert (answer.status_code, answer.json()["reason"]) == (552, "output_rejected")


def test_too_much_memory_is_told_as_such(door: DoorClient) -> None:
    model = door.add_model(script_image("tail /dev/zero"), memory_limit_bytes=32 * 1024**2)
    body = repeat_until_told(
        lambda: door.ended(door.submit(model, {"i": b""})).json(), lambda body: body["reason"] == "out_of_memory"
    )
    assert body["reason"] == "out_of_memory"


def test_a_run_has_the_limits_of_its_model_and_says_which_it_hit(door: DoorClient) -> None:
    image = script_image("dd if=/dev/zero of=/tmp/volume bs=1M count=24 && echo fits > /output/said.txt")
    narrow, wide = (door.add_model(image, temporary_bytes=size * 1024**2) for size in (8, 32))
    body = door.ended(door.submit(narrow, {"i": b""})).json()
    assert body["reason"] == "exit_code"
    assert "its /tmp of 8 MiB is full: dd: error writing '/tmp/volume'" in body["detail"]
    assert "register the model with a larger temporary_bytes" in body["detail"]
    assert door.result(door.submit(wide, {"i": b""})) == {"said.txt": b"fits\n"}


@EVERYWHERE_IF_LONG
def test_a_run_over_its_time_limit_is_ended(door: DoorClient) -> None:
    model = door.add_model(script_image(f"echo started; {UNTIL_TOLD}"), time_limit_s=2)
    body = door.ended(door.submit(model, {"i": b""})).json()
    assert body["reason"] == "time_limit"
    assert "2 s" in body["detail"]


@EVERYWHERE_IF_LONG
def test_an_absent_image_is_told_as_such(door: DoorClient) -> None:
    model = door.add_model("no-such-image:1", pull_policy="never")
    body = door.ended(door.submit(model, {"i": b""})).json()
    assert body["reason"] == "image_not_found"
    assert "no-such-image:1" in body["detail"]


@EVERYWHERE_IF_LONG
def test_an_input_with_a_wrong_checksum_fails_as_rejected(door: DoorClient) -> None:
    broken = make_zip({"a.txt": b"some content that is stored"}, method=zipfile.ZIP_STORED).replace(
        b"some content", b"sOme content"
    )
    uid = door.submit_zip(door.add_model(echo_image()), broken)
    body = door.ended(uid).json()
    assert body["reason"] == "input_rejected"
    assert "a.txt" in body["detail"]


@EVERYWHERE_IF_LONG
def test_an_unknown_model_is_550_and_an_unknown_task_554(door: DoorClient) -> None:
    answer = door.http.post("/api/tasks/", params={"human_readable_id": "nobody"}, content=make_zip({}))
    assert (answer.status_code, answer.json()["error"]) == (550, "ModelNotFound")
    assert door.http.get(f"/api/tasks/{'0' * 64}").status_code == 554
    assert door.http.get(f"/api/tasks/{'0' * 64}/status").status_code == 404


def test_a_running_task_is_cancelled(door: DoorClient) -> None:
    uid = door.submit(door.add_model(script_image(f"echo up; {UNTIL_TOLD}")), {"i": b""})
    door.wait_status(uid, "running")
    assert door.http.post(f"/api/tasks/{uid}/cancel").json()["cancel_requested"] is True
    answer = door.ended(uid)
    assert (answer.status_code, answer.json()["status"], answer.json()["reason"]) == (552, "cancelled", "cancelled")


@EVERYWHERE_IF_LONG
def test_a_waiting_task_is_cancelled_at_once_and_a_deleted_one_is_gone(door: DoorClient) -> None:
    model = door.add_model(script_image(UNTIL_TOLD))
    busy = door.submit(model, {"i": b""})
    door.wait_status(busy, "running")
    waiting = door.submit(model, {"i": b""})
    assert door.status(waiting)["position"] == 0
    assert door.http.post(f"/api/tasks/{waiting}/cancel").json()["status"] == "cancelled"
    for uid in (waiting, busy, busy):
        assert door.http.delete(f"/api/tasks/{uid}").status_code == 204
    assert door.http.get(f"/api/tasks/{busy}").status_code == 554


def test_what_happens_to_a_task_is_told_as_it_happens(door: DoorClient) -> None:
    uid = door.submit(door.add_model(script_image(UNTIL_TOLD)), {"i": b""})
    received = ""
    with door.http.stream("GET", "/api/events", params={"uid": uid}, headers={"Last-Event-ID": "0"}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for piece in answer.iter_text():
            received += piece
            # It is told of while it lasts: nothing on the way keeps it back.
            if '"new_status":"running"' in received and door.status(uid)["status"] == "running":
                door.http.post(f"/api/tasks/{uid}/cancel")
            if '"new_status":"cancelled"' in received:
                break
    statuses = [line.split('"new_status":"')[1].split('"')[0] for line in received.split("\n") if uid in line]
    assert [status for status in statuses if status != "leased"] == ["queued", "running", "cancelled"]
    for told in ("event: queue\ndata: ", "event: task\nid: "):
        assert told in received


def remove_image(image: str) -> bool:
    """Whether it could be removed: no container uses it any more."""
    client = docker.from_env()
    try:
        client.images.remove(image)
    except docker.errors.APIError:
        return False
    finally:
        client.close()
    return True


def test_a_task_whose_image_is_pulled_says_how_much_of_it(door: DoorClient) -> None:
    go_on = Event()
    with serve_slow_image(go_on) as image:
        model = door.add_model(image, pull_policy="missing")
        uid = door.submit(model, {"i": b""})
        wait_until(lambda: door.status(uid)["pull_percent"], lambda: f"a percent: {door.status(uid)}")
        body = door.http.get(f"/api/tasks/{uid}").json()
        assert (body["status"], body["waits_for"]) == ("leased", "image")
        # Half of its only layer is here, and nothing is unpacked.
        assert 0 < body["pull_percent"] <= 25
        assert f"{body['pull_percent']} % done" in body["wait_detail"]
        go_on.set()
        # There is no program in it.
        assert door.ended(uid).status_code == 552
        assert door.status(uid)["pull_percent"] is None
        # A version that was looked up before its task came is pulled by its digest.
        names = {image, door.http.get(f"/api/models/{model}").json().get("pinned_image") or image}
        wait_until(lambda: any(remove_image(name) for name in names), "the image is free")


def test_the_log_is_followed_while_the_run_writes_it(door: DoorClient) -> None:
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


def test_a_gpu_task_sees_the_one_gpu_and_another_sees_none(door: DoorClient, system: System) -> None:
    image = script_image("echo gpu=$NVIDIA_VISIBLE_DEVICES > /output/g")
    with_gpu = door.add_model(image, use_gpu=True)
    without = door.add_model(image, use_gpu=False)
    assert door.result(door.submit(with_gpu, {"i": b""}))["g"] == f"gpu={GPU_UUID}\n".encode()
    assert door.result(door.submit(without, {"i": b""}))["g"] in (b"gpu=\n", b"gpu=void\n")


def test_a_compatible_model_runs_as_the_user_of_its_image(door: DoorClient) -> None:
    image = script_image("id -u > /output/u; (touch /written && echo yes > /output/root) || true")
    assert door.result(door.submit(door.add_model(image, isolation="compatible"), {"i": b""})) == {
        "u": b"0\n",
        "root": b"yes\n",
    }
    assert door.result(door.submit(door.add_model(image), {"i": b""}))["u"] != b"0\n"


def test_the_output_can_be_resumed_by_range(door: DoorClient) -> None:
    uid = door.submit(door.add_model(echo_image()), {"data": bytes(range(256)) * 4000})
    whole = door.ended(uid)
    etag, url = whole.headers["etag"], f"/api/tasks/{uid}/output"
    rest = door.http.get(url, headers={"Range": "bytes=1000-", "If-Range": etag})
    assert (rest.status_code, rest.content) == (206, whole.content[1000:])
    assert door.http.head(url).headers["content-length"] == str(len(whole.content))
    assert door.http.get(url, headers={"If-None-Match": etag}).status_code == 304


@EVERYWHERE_IF_LONG
def test_files_come_by_their_names_and_a_rerun_needs_no_upload(door: DoorClient) -> None:
    files = {"case 1/mask.txt": b"one", "ümläut #1?.txt": b"two", "50%2F50/page.html": b"<script>alert(1)</script>"}
    first = door.submit(door.add_model(echo_image()), files)
    assert door.ended(first).status_code == 200
    for side in ("input", "output"):
        listed = door.http.get(f"/api/tasks/{first}/{side}/files").json()
        assert {each["path"] for each in listed} == set(files)
        for name, content in files.items():
            for safe in ("/", ""):
                answer = door.http.get(f"/api/tasks/{first}/{side}/files/{quote(name, safe=safe)}")
                assert (answer.status_code, answer.content) == (200, content), name
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["content-disposition"].startswith("attachment;")
        part = door.http.get(f"/api/tasks/{first}/{side}/files/case%201/mask.txt", headers={"Range": "bytes=1-"})
        assert (part.status_code, part.content) == (206, b"ne")
        assert part.headers["content-security-policy"] == "sandbox; default-src 'none'"
    again = door.http.post(f"/api/tasks/{first}/rerun").json()
    assert door.http.delete(f"/api/tasks/{first}").status_code == 204
    assert door.result(again) == files
    assert door.status(again)["rerun_of"] == first


@EVERYWHERE_IF_LONG
def test_the_same_idempotency_key_answers_the_same_task(door: DoorClient) -> None:
    model, data = door.add_model(echo_image()), make_zip({"a": b"1"})
    first, again = (door.submit_zip(model, data, key="k-1") for _ in range(2))
    assert first == again
    other = door.http.post(
        "/api/tasks/",
        params={"human_readable_id": model},
        content=make_zip({"a": b"2"}),
        headers={"Idempotency-Key": "k-1", "Content-Type": "application/zip"},
    )
    assert other.status_code == 409
    door.ended(first)


def test_a_consumer_that_is_killed_adopts_its_container_and_delivers_once(door: DoorClient, system: System) -> None:
    model = door.add_model(script_image("echo begun; sleep 4; cat /proc/sys/kernel/random/uuid > /output/id"))
    uid = door.submit(model, {"i": b""})
    door.wait_status(uid, "running")
    before = leftovers(system)
    system.consumer.kill()
    assert leftovers(system) == before, "the container goes on without its consumer"
    system.consumer.start()
    system.wait_ready()
    result = door.result(uid)
    status = door.status(uid)
    assert len(result["id"]) == 37
    assert status["attempt"] == 1, "the same container was adopted, not a second one started"
    assert "adopting the run" in system.logs()


@EVERYWHERE_IF_LONG
def test_a_container_that_ended_while_its_consumer_was_down_is_delivered(door: DoorClient, system: System) -> None:
    uid = door.submit(door.add_model(script_image("sleep 2; echo x > /output/x")), {"i": b""})
    door.wait_status(uid, "running")
    system.consumer.kill()
    wait_until(lambda: containers(system, status="exited"), system.logs)
    system.consumer.start()
    system.wait_ready()
    assert door.result(uid) == {"x": b"x\n"}
    assert door.status(uid)["attempt"] == 1


@EVERYWHERE_IF_LONG
def test_a_consumer_killed_while_it_ends_a_run_still_says_why(door: DoorClient, system: System) -> None:
    model = door.add_model(script_image("trap '' TERM; while true; do sleep 1; done"), time_limit_s=1)
    uid = door.submit(model, {"i": b""})
    door.wait_status(uid, "running")
    wait_until(lambda: list((system.work_dir / "attempts").glob(f"*/{uid}-*/verdict.json")), system.logs)
    system.consumer.kill()
    system.consumer.start()
    system.wait_ready()
    assert door.ended(uid).json()["reason"] == "time_limit"


def test_queued_tasks_survive_a_restart(door: DoorClient, system: System) -> None:
    slow = door.submit(door.add_model(script_image("sleep 2; touch /output/x")), {"i": b""})
    model = door.add_model(echo_image())
    queued = [door.submit(model, {"n": str(n).encode()}) for n in range(3)]
    system.end()
    system.start()
    system.wait_ready()
    assert door.result(slow) == {"x": b""}
    assert [door.result(uid)["n"] for uid in queued] == [b"0", b"1", b"2"]


def test_many_tasks_each_run_once(door: DoorClient) -> None:
    model = door.add_model(echo_image())
    uids = [door.submit(model, {"n": str(n).encode()}) for n in range(12)]
    assert [door.result(uid)["n"] for uid in uids] == [str(n).encode() for n in range(12)]
    assert {door.status(uid)["attempt"] for uid in uids} == {1}


def test_an_upload_that_breaks_off_leaves_nothing(door: DoorClient, system: System) -> None:
    model = door.add_model(echo_image())

    def broken() -> Iterator[bytes]:
        yield make_zip({"a": b"x" * 100_000})[:60_000]
        raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        door.http.post(
            "/api/tasks/",
            params={"human_readable_id": model},
            content=broken(),
            headers={"Content-Type": "application/zip"},
        )
    wait_until(lambda: not list((system.data_dir / "archives/tmp").iterdir()))


@EVERYWHERE_IF_LONG
def test_a_body_that_is_no_zip_is_refused_before_there_is_a_task(door: DoorClient) -> None:
    model = door.add_model(echo_image())
    data = io.BytesIO(b"this is no zip")
    answer = door.http.post("/api/tasks/", params={"human_readable_id": model}, files={"zip_file": data})
    assert (answer.status_code, answer.json()["error"]) == (422, "InvalidArchive")


@pytest.mark.parametrize("system", ["standalone", "compose"], indirect=True)
def test_a_model_is_kept_warm_across_a_power_cut_of_its_consumer(system: System) -> None:
    query = {"human_readable_id": "warm", "container_tag": backend_image(), "pull_policy": "never"}
    with httpx.Client(base_url=system.url, timeout=60, trust_env=False, verify=trust(system.verify)) as http:
        body = make_zip({"behaviour.json": json.dumps({}).encode()})
        headers = {"Content-Type": "application/zip"}
        http.post("/api/models/", params=query | {"model_available": "true"}, content=body, headers=headers)
        http.post(MODEL, json={"port": 9100, "replicas_min": 1}).raise_for_status()
        wait_until(lambda: replicas(http, "ready"), system.logs)
        (replica,) = replicas(http, "ready")
        (container,) = labelled_containers(system)
        (guard,) = labelled_containers(system, "guard")
        (network,) = guard["NetworkSettings"]["Networks"]
        assert network == REPLICA_NETWORK or network.endswith("_replicas")
        system.consumer.kill()
        assert run_inside(container["Id"], SAY) == "b'alone'\n"
        system.consumer.start()
        system.wait_ready()
        ready = f"replica={replica['uid']} ready at {replica['address']}"
        wait_until(lambda: system.consumer.output().count(ready) == 2, system.logs)
        assert [found["uid"] for found in replicas(http, "ready")] == [replica["uid"]]
        assert [found["Id"] for found in labelled_containers(system)] == [container["Id"]]
        http.delete(MODEL).raise_for_status()
        wait_until(lambda: not labelled_containers(system) and not labelled_containers(system, "guard"), system.logs)
