"""The twelve faults, each a function that breaks something and returns what it saw, or raises `FaultNoticedError`."""

import secrets
import threading
from collections.abc import Callable

from inference_client.errors import InvalidArchive, TaskNotFound
from operations.selftest.bench import MEMORY_BYTES, MIB, Bench, FaultNoticedError

_RUN_S = 6.0
_FOREVER_S = 500.0
_UPLOAD_BYTES = 32 * MIB

Fault = Callable[[Bench], str]


def kill_consumers(bench: Bench) -> str:
    uid = bench.submit(seconds=_RUN_S)
    bench.wait_running(uid)
    with bench.killed(*bench.stack.consumers()):
        pass
    return bench.expect_output(uid)


def kill_private_api_in_upload(bench: Bench) -> str:
    begun = threading.Event()

    def kill_once(done: int, _total: int | None) -> None:
        if done and not begun.is_set():
            begun.set()
            with bench.killed("private-api"):
                pass

    return bench.expect_output(bench.submit(ballast=_UPLOAD_BYTES, on_progress=kill_once))


def kill_private_api_in_run(bench: Bench) -> str:
    uid = bench.submit(seconds=_RUN_S)
    bench.wait_running(uid)
    with bench.killed("private-api"):
        pass
    return bench.expect_output(uid)


def kill_broker(bench: Bench) -> str:
    with bench.killed("rabbitmq"):
        uid = bench.submit()
        return bench.expect_output(uid)


def kill_database(bench: Bench) -> str:
    uid = bench.submit(seconds=_RUN_S)
    bench.wait_running(uid)
    with bench.killed("postgres"):
        pass
    return bench.expect_output(uid)


def cancel_run(bench: Bench) -> str:
    uid = bench.submit(seconds=_FOREVER_S)
    bench.wait_running(uid)
    bench.client.cancel(uid)
    return _expect(bench, uid, "cancelled")


def delete_run(bench: Bench) -> str:
    uid = bench.submit(seconds=_FOREVER_S)
    bench.wait_running(uid)
    bench.client.delete(uid)
    bench.deleted.add(uid)
    try:
        bench.client.status(uid)
    except TaskNotFound:
        bench.until(lambda: not bench.stack.containers(uid), "its container is not removed")
        return "gone, and its container too"
    raise FaultNoticedError("the task is still there")


def send_bad_zip(bench: Bench) -> str:
    code = bench.send(secrets.token_bytes(1000))
    if code != InvalidArchive.http_status:
        raise FaultNoticedError(f"answered {code}")
    return f"refused with {code}"


def fail_model(bench: Bench) -> str:
    return _expect(bench, bench.submit(code=3), "failed", "exit_code")


def exhaust_memory(bench: Bench) -> str:
    # An Engine may not notice that it was the memory; then the code alone says that the run was killed.
    return _expect(bench, bench.submit(memory=4 * MEMORY_BYTES), "failed", "out_of_memory", "exit_code")


def exceed_time(bench: Bench) -> str:
    return _expect(bench, bench.submit(seconds=_FOREVER_S, model=bench.short_model), "failed", "time_limit")


def submit_twice(bench: Bench) -> str:
    key, number = secrets.token_hex(16), secrets.token_hex(8)
    uids = {bench.submit(key=key, number=number) for _ in range(3)}
    if len(uids) != 1:
        raise FaultNoticedError(f"{len(uids)} tasks of one submission")
    return bench.expect_output(uids.pop())


FAULTS: dict[str, Fault] = {
    "consumers killed while a task runs": kill_consumers,
    "private API killed during an upload": kill_private_api_in_upload,
    "private API killed while a task runs": kill_private_api_in_run,
    "broker killed": kill_broker,
    "database killed while a task runs": kill_database,
    "a running task cancelled": cancel_run,
    "a running task deleted": delete_run,
    "a body that is no zip": send_bad_zip,
    "a model that ends with code 3": fail_model,
    "a model that needs too much memory": exhaust_memory,
    "a model that takes too long": exceed_time,
    "one submission sent three times": submit_twice,
}


def _expect(bench: Bench, uid: str, status: str, *reasons: str) -> str:
    view = bench.ended(uid)
    if view.status != status or (reasons and view.reason not in reasons):
        raise FaultNoticedError(f"{view.status}, {view.reason}: {view.detail}")
    return status + (f", {view.reason}" if reasons else "")
