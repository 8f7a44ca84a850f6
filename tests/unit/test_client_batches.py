"""Batches: results in order or as they end, failures that stop nobody, one status, one cancellation."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract import errors as server_errors
from inference_client import Batch, InferenceClient
from inference_client.batches import NOT_SUBMITTED
from inference_client.errors import InvalidArchive, ModelNotFound, TaskFailed, UnusableInput, WaitTimeout
from inference_client.pack import Inputs
from tests.unit.client_peer import Answer, Peer, running_peer, task_view
from tests.zips import make_zip

UIDS = [f"{number:064x}" for number in range(1, 4)]


def answer(value: object) -> Answer:
    return Answer(body=json.dumps(value).encode(), headers={"Content-Type": "application/json"})


class Server:
    """A peer that says of each task what the test wants next, and again from then on."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    def submits(self, *uids: str) -> None:
        self.peer.plan("POST", "/api/tasks/", *map(answer, uids))

    def says(self, uid: str, *statuses: str, **fields: object) -> None:
        views = [answer(task_view(uid=uid, status=status, **fields)) for status in statuses]
        self.peer.plan("GET", f"/api/tasks/{uid}/status", *views)

    def has_output(self, uid: str, content: bytes) -> None:
        self.peer.output = make_zip({"out": content})
        self.peer.plan("GET", f"/api/tasks/{uid}/output", self.peer.answer_output())


@pytest.fixture
def peer() -> Iterator[Peer]:
    with running_peer() as peer:
        yield peer


@pytest.fixture
def server(peer: Peer) -> Server:
    return Server(peer)


@pytest.fixture
def client(peer: Peer) -> Iterator[InferenceClient]:
    with InferenceClient(peer.url, sleep=lambda _: None) as client:
        yield client


CASES = [b"one", b"two", b"three"]


@pytest.fixture
def batch(client: InferenceClient, server: Server) -> Batch[bytes]:
    server.submits(*UIDS)
    return client.map("seg", CASES)


def test_results_come_in_the_order_of_the_cases(batch: Batch[bytes], server: Server) -> None:
    server.says(UIDS[0], "running", "running", "finished")
    server.says(UIDS[1], "finished")
    server.says(UIDS[2], "queued", "finished")
    server.has_output(UIDS[0], b"first")
    results = list(batch)
    assert [result.uid for result in results] == UIDS
    assert [result.case for result in results] == CASES
    assert results[0].output["out"].read_bytes() == b"first"
    assert results[0].output is next(iter(batch)).output


def test_results_come_as_they_end(batch: Batch[bytes], server: Server) -> None:
    server.says(UIDS[0], "running", "running", "running", "finished")
    server.says(UIDS[1], "running", "running", "finished")
    server.says(UIDS[2], "finished")
    assert [result.uid for result in batch.as_ended()] == [UIDS[2], UIDS[1], UIDS[0]]
    assert sorted(str(result.uid) for result in batch.as_ended()) == UIDS


def test_a_failed_task_stops_no_other(batch: Batch[bytes], server: Server) -> None:
    server.says(UIDS[0], "failed", reason="exit_code", detail="it broke")
    server.says(UIDS[1], "cancelled")
    server.says(UIDS[2], "finished")
    errors = [result.error for result in batch]
    assert [type(error) for error in errors] == [TaskFailed, TaskFailed, type(None)]
    with pytest.raises(TaskFailed, match="it broke"):
        _ = next(iter(batch)).output
    assert batch.status() == {"failed": 1, "cancelled": 1, "finished": 1}
    assert repr(batch).endswith("1 failed, 1 cancelled, 1 finished>")


def test_a_case_that_cannot_be_sent_stops_no_other(client: InferenceClient, server: Server, tmp_path: Path) -> None:
    server.peer.plan(
        "POST", "/api/tasks/", Answer.of(server_errors.InvalidArchive("too many <files>")), answer(UIDS[0])
    )
    cases: list[Inputs] = [b"refused", str(tmp_path / "nowhere"), b"fine"]
    batch = client.map("seg", cases)
    server.says(UIDS[0], "finished")
    errors = [type(result.error) for result in batch]
    assert errors == [InvalidArchive, UnusableInput, type(None)]
    assert batch.uids == [None, None, UIDS[0]]
    assert batch.status() == {NOT_SUBMITTED: 2, "finished": 1}
    shown = batch._repr_html_()
    assert "too many &lt;files&gt;" in shown
    assert "<files>" not in shown


def test_what_would_stop_every_case_is_raised_with_what_was_submitted(client: InferenceClient, server: Server) -> None:
    server.submits(UIDS[0])
    server.peer.plan("POST", "/api/tasks/", Answer.of(server_errors.ModelNotFound()))
    with pytest.raises(ModelNotFound) as raised:
        client.map("seg", CASES, label="study 7")
    assert raised.value.__notes__ == ["1 of 3 cases were submitted before that; label: study 7"]


def test_all_tasks_have_one_label(client: InferenceClient, server: Server) -> None:
    first, second = client.map("seg", CASES), client.map("seg", CASES)
    third = client.map("seg", CASES, label="study 7", priority=-1)
    sent = [seen.query["label"] for seen in server.peer.calls("POST", "/api/tasks/")]
    assert sent == [first.label] * 3 + [second.label] * 3 + ["study 7"] * 3
    assert first.label != second.label
    assert third.label == "study 7"
    assert server.peer.calls("POST", "/api/tasks/")[-1].query["priority"] == "-1"


def test_all_are_cancelled_that_have_not_ended(batch: Batch[bytes], server: Server) -> None:
    server.says(UIDS[0], "finished")
    for uid in UIDS[1:]:
        server.says(uid, "running")
        cancelled = answer(task_view(uid=uid, status="cancelled"))
        server.peer.plan("POST", f"/api/tasks/{uid}/cancel", cancelled)
    batch.status()
    assert batch.cancel() == {"finished": 1, "cancelled": 2}
    assert not server.peer.calls("POST", f"/api/tasks/{UIDS[0]}/cancel")


def test_waiting_for_all_ends_or_times_out(batch: Batch[bytes], server: Server) -> None:
    for uid in UIDS:
        server.says(uid, "queued", "finished")
    with pytest.raises(WaitTimeout, match="3 of 3 tasks have not ended within 0s; they go on"):
        batch.wait(timeout_s=0)
    assert batch.wait() is batch
    assert batch.summary() == "3 finished"


def test_a_batch_outlives_a_restart_of_the_server(batch: Batch[bytes], server: Server) -> None:
    gone = [Answer.of(server_errors.ServiceUnavailable("restarting"))] * 7
    server.peer.plan("GET", f"/api/tasks/{UIDS[0]}/status", *gone)
    for uid in UIDS:
        server.says(uid, "finished")
    assert [result.error for result in batch] == [None] * 3


def test_a_task_that_was_deleted_meanwhile_is_an_error_of_its_own(batch: Batch[bytes], server: Server) -> None:
    server.peer.plan("GET", f"/api/tasks/{UIDS[0]}/status", Answer.of(server_errors.TaskRecordNotFound()))
    server.says(UIDS[1], "finished")
    server.says(UIDS[2], "finished")
    assert [type(result.error).__name__ for result in batch] == ["TaskRecordNotFound", "NoneType", "NoneType"]
    assert batch.status() == {"unknown": 1, "finished": 2}
