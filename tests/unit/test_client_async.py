"""The client in an event loop: the same methods, real awaits, cancellation, and no blocking of what runs beside it."""

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from contract import errors as server_errors
from inference_client import AsyncInferenceClient, InferenceClient
from inference_client.errors import ServiceUnavailable, TaskNotFound
from inference_client.pack import Inputs
from tests.unit.client_peer import UID, Answer, Peer, model_view, running_peer, task_view
from tests.waiting import PATIENCE_S
from tests.zips import make_zip


@pytest.fixture
def peer() -> Iterator[Peer]:
    with running_peer() as peer:
        peer.output = make_zip({"mask": b"mask"})
        yield peer


def in_loop(peer: Peer, use: Callable[[AsyncInferenceClient], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with AsyncInferenceClient(peer.url, key="the-key") as client:
            await asyncio.wait_for(use(client), PATIENCE_S)

    asyncio.run(main())


def public_methods(cls: type) -> dict[str, list[str]]:
    found = inspect.getmembers(cls, inspect.isfunction)
    return {name: list(inspect.signature(member).parameters) for name, member in found if not name.startswith("_")}


def test_both_clients_have_the_same_methods_with_the_same_parameters() -> None:
    assert public_methods(AsyncInferenceClient) == public_methods(InferenceClient)


def test_a_whole_job_is_awaited(peer: Peer, tmp_path: Path) -> None:
    peer.views.extend([task_view(status="running"), task_view(status="finished")])
    peer.log = b"a line\n"
    (tmp_path / "scan").write_bytes(b"x" * 600_000)

    async def use(client: AsyncInferenceClient) -> None:
        output = await client.run("seg", tmp_path)
        assert output["mask"].read_bytes() == b"mask"
        assert b"".join([piece async for piece in client.logs(UID, follow=True)]) == b"a line\n"
        assert await client.fetch(UID, tmp_path / "new", extract=True) == tmp_path / "new"
        peer.models = [model_view(human_readable_id=f"m{number:03}") for number in range(150)]
        assert len([model async for model in client.list_models()]) == 150
        assert client.was_reached

    in_loop(peer, use)
    (sent,) = peer.calls("POST", "/api/tasks/")
    assert (len(sent.body) > 600_000, sent.headers["x-api-key"]) == (True, "the-key")


def test_errors_keep_their_classes_and_calls_are_repeated(peer: Peer) -> None:
    peer.plan("GET", f"/api/tasks/{UID}/status", Answer.of(server_errors.ServiceUnavailable("busy")))
    peer.plan("GET", f"/api/tasks/{UID}/events", Answer.of(server_errors.TaskNotFound()))

    async def use(client: AsyncInferenceClient) -> None:
        assert (await client.status(UID)).uid == UID
        with pytest.raises(TaskNotFound):
            await client.events(UID)

    in_loop(peer, use)
    assert len(peer.calls("GET", f"/api/tasks/{UID}/status")) == 2


def test_a_cut_download_is_resumed(peer: Peer, tmp_path: Path) -> None:
    peer.output = b"z" * 400_000
    cut = peer.answer_output()
    cut.cut_after = 100_000
    peer.plan("GET", f"/api/tasks/{UID}/output", cut)

    async def use(client: AsyncInferenceClient) -> None:
        assert (await client.fetch(UID, tmp_path / "out")).read_bytes() == peer.output

    in_loop(peer, use)
    assert [seen.headers.get("range", "")[:6] for seen in peer.calls("GET", f"/api/tasks/{UID}/output")][1] == "bytes="


def test_a_server_that_is_not_there_is_said() -> None:
    async def main() -> None:
        async with AsyncInferenceClient("http://127.0.0.1:1", first_contact_s=0.2) as client:
            with pytest.raises(ServiceUnavailable, match="cannot be reached"):
                await client.status(UID)
            assert not client.was_reached

    asyncio.run(main())


def hold(peer: Peer, release: threading.Event) -> threading.Event:
    """The peer answers its next status only once `release` is set; returns what says that it was asked."""
    asked = threading.Event()
    usual = peer.answer

    def answer(seen: Any) -> Answer:
        if seen.path.endswith("/status"):
            asked.set()
            release.wait(PATIENCE_S)
        return usual(seen)

    peer.answer = answer  # type: ignore[method-assign]
    return asked


def test_the_loop_goes_on_while_calls_wait(peer: Peer) -> None:
    peer.views[0] = task_view(status="finished")
    release = threading.Event()
    asked = hold(peer, release)

    async def use(client: AsyncInferenceClient) -> None:
        async def let_go() -> None:
            while not asked.is_set():
                await asyncio.sleep(0.01)
            release.set()

        waits = [client.wait(UID) for _ in range(20)]
        tasks = await asyncio.gather(*waits, let_go())
        assert [task.status for task in tasks[:20] if task is not None] == ["finished"] * 20

    in_loop(peer, use)


def test_a_cancelled_run_stops_waiting_and_cancels_its_task(peer: Peer) -> None:
    release = threading.Event()
    asked = hold(peer, release)

    async def use(client: AsyncInferenceClient) -> None:
        running = asyncio.create_task(client.run("seg", b"ct"))
        while not asked.is_set():
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    try:
        in_loop(peer, use)
    finally:
        release.set()
    assert len(peer.calls("POST", f"/api/tasks/{UID}/cancel")) == 1


def test_a_batch_is_awaited(peer: Peer, tmp_path: Path) -> None:
    peer.views[0] = task_view(status="finished")

    async def use(client: AsyncInferenceClient) -> None:
        cases: list[Inputs] = [b"one", str(tmp_path / "nowhere"), b"three"]
        batch = await client.map("seg", cases, label="study 7")
        results = [result async for result in batch]
        assert [type(result.error).__name__ for result in results] == ["NoneType", "UnusableInput", "NoneType"]
        assert (await batch.output(results[0]))["mask"].read_bytes() == b"mask"
        assert len([result async for result in batch.as_ended()]) == len(batch) == 3
        assert await batch.status() == {"finished": 2, "not submitted": 1}
        assert repr(await batch.wait()) == "<AsyncBatch 'study 7': 2 finished, 1 not submitted>"
        with pytest.raises(RuntimeError, match="await the method"):
            _ = results[2].output

    in_loop(peer, use)


def test_a_log_that_is_left_early_is_closed(peer: Peer) -> None:
    peer.log = b"x" * 3_000_000

    async def use(client: AsyncInferenceClient) -> None:
        async for piece in client.logs(UID):
            assert piece
            break
        assert (await client.status(UID)).uid == UID

    in_loop(peer, use)
