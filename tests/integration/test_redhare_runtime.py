"""The redhare runtime: streams, batches, tasks, and kernels that misbehave."""

import json
import queue
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from contract.tokens import Claims, sign_token
from tests.integration.redhare_harness import KEY, TOKEN, Runtime, compile_stubs, run_runtime
from tests.waiting import wait_until

ECHO = """
class Echo(Kernel):
    def on_task_invoke(self, task):
        while task != None:
            task.set_output_data(task.get_input_data())
            task = task.next()
Echo().run()
"""


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = compile_stubs(tmp_path_factory.mktemp("stubs"))
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


def requests(*data: str, token: str = TOKEN) -> Iterator[Any]:
    import stream_pb2

    yield stream_pb2.Request(token=token)
    for item in data:
        yield stream_pb2.Request(data=item.encode())


def stream(runtime: Runtime, messages: Iterable[Any], **options: Any) -> Any:
    import stream_pb2_grpc

    stub = stream_pb2_grpc.InferenceStub(runtime.channel)
    return stub.stream_infer(iter(messages), timeout=60, wait_for_ready=True, **options)


def answers(runtime: Runtime, *data: str) -> list[str]:
    return [response.data.decode() for response in stream(runtime, requests(*data))]


def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    return caught.value.code(), caught.value.details()


def let_pass(runtime: Runtime) -> None:
    """What was sent before is read by now: the server answers these one after the other, on the same connection."""
    for _ in range(20):
        health_pb2_grpc.HealthStub(runtime.channel).Check(health_pb2.HealthCheckRequest(), timeout=60)


def run_task(runtime: Runtime, files: dict[str, str], run: str = "run") -> tuple[Any, dict[str, str]]:
    import tasks_pb2
    import tasks_pb2_grpc

    folder = runtime.tasks_dir / run
    (folder / "output").mkdir(parents=True)
    (folder / "input").mkdir()
    for name, text in files.items():
        (folder / "input" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "input" / name).write_text(text)
    (folder / "progress").mkdir()
    request = tasks_pb2.RunRequest(
        task_uid="t",
        input_dir=f"{folder}/input",
        output_dir=f"{folder}/output",
        progress_file=f"{folder}/progress/latest",
    )
    reply = tasks_pb2_grpc.TasksStub(runtime.channel).Run(request, timeout=60, wait_for_ready=True)
    output = folder / "output"
    return reply, {str(p.relative_to(output)): p.read_text() for p in output.rglob("*") if p.is_file()}


def test_answers_come_in_the_order_of_their_requests(stubs: Path, tmp_path: Path) -> None:
    with run_runtime(tmp_path, stubs, ECHO) as runtime:
        data = [str(number) for number in range(500)]
        assert answers(runtime, *data) == data


def test_requests_that_wait_become_one_batch(stubs: Path, tmp_path: Path) -> None:
    kernel = f"""
class Slow(Kernel):
    def on_task_invoke(self, task):
        batch = []
        while task is not None:
            batch.append(task)
            task = task.next()
        if batch[0].get_input_data() == "first":
            open({str(tmp_path / "started")!r}, "w").close()
            while not os.path.exists({str(tmp_path / "go")!r}):
                time.sleep(0.01)
        for one in batch:
            one.set_output_data(str(len(batch)))
Slow().run()
"""
    with run_runtime(tmp_path, stubs, kernel) as runtime:
        first = stream(runtime, requests("first"))
        wait_until((tmp_path / "started").exists)
        others = [stream(runtime, requests("x", "y")) for _ in range(4)]
        let_pass(runtime)
        (tmp_path / "go").touch()
        assert [response.data for response in first] == [b"1"]
        sizes = {int(response.data) for other in others for response in other}
    assert max(sizes) > 1


def test_a_kernel_finds_all_that_public_ones_call(stubs: Path, tmp_path: Path) -> None:
    """Each call of the published `redhareapi`, on both contexts and on the kernel itself."""
    kernel = """
class Public(Kernel):
    def on_kernel_start(self, context):
        self.id = context.get_id()
        for level, text in ((-1, "minute"), (0, "plain"), (1, "odd"), (2, "bad")):
            Kernel.log(level, text)
        Public.log_warn("careful")
    def on_task_invoke(self, task):
        first = task
        while task is not None:
            last, task = task, task.next()
        assert first.prev() is None
        while last is not None:
            names = [last.get_session_id(), last.get_job_id(), last.get_model_name(), last.get_version(), self.id]
            said = [*names, last.get_id(), last.get_uuid(), last.get_input_data_extend()]
            assert last.report_ready("half") is True
            assert last.set_output_data_extend(json.dumps(said)) is True
            assert last.set_output_data("again") is False
            last = last.prev()
Public().run()
"""
    given = {"REDHARE_MODEL_VERSION": "7", "LOG_LEVEL": "DEBUG"}
    with run_runtime(tmp_path, stubs, kernel, **given) as runtime:
        call = stream(runtime, requests("a", "b"), metadata=(("request_id", "stream-1"),))
        told = [json.loads(response.data) for response in call]
        task, files = run_task(runtime, {"scan.txt": "c"})
        logs = runtime.logs()
    assert [one[:5] for one in told] == [["stream-1", "stream-1", "model", "7", "r1"]] * 2
    assert [one[7] for one in told] == ["a", "b"]
    assert task.exit_code == 0
    of_task = json.loads(files["scan.txt"])
    assert of_task[:2] == ["t", "t"], "a task is one session"
    for member in (5, 6):
        assert len({one[member] for one in (*told, of_task)}) == 3
    for level, text in (("DEBUG", "minute"), ("INFO", "plain"), ("WARNING", "odd"), ("ERROR", "bad")):
        assert any(level in line and text in line for line in logs.splitlines())
    assert any("WARNING" in line and "careful" in line for line in logs.splitlines())


def test_a_kernel_that_never_asks_for_more_still_answers_all(stubs: Path, tmp_path: Path) -> None:
    kernel = """
class Single(Kernel):
    def on_task_invoke(self, task):
        task.set_output_data(task.get_input_data())
Single().run()
"""
    with run_runtime(tmp_path, stubs, kernel) as runtime:
        data = [str(number) for number in range(100)]
        assert answers(runtime, *data) == data


def test_a_kernel_that_sets_no_output_gives_an_empty_answer_and_a_line_in_the_log(stubs: Path, tmp_path: Path) -> None:
    kernel = """
class Swallowing(Kernel):
    def on_task_invoke(self, task):
        try:
            while task is not None:
                if task.get_input_data() == "bad":
                    raise ValueError("bad")
                task.set_output_data("good")
                task = task.next()
        except ValueError as error:
            Kernel.log_error(str(error))
Swallowing().run()
"""
    with run_runtime(tmp_path, stubs, kernel) as runtime:
        assert answers(runtime, "a", "bad", "b", "bad", "c") == ["good", "", "good", "", "good"]
        assert "the kernel set no output; the answer is empty" in runtime.logs()


def test_a_kernel_that_raises_fails_the_stream_that_asked_and_goes_on(stubs: Path, tmp_path: Path) -> None:
    kernel = """
class Raising(Kernel):
    def on_task_invoke(self, task):
        while task is not None:
            task.set_output_data(str(1 / int(task.get_input_data())))
            task = task.next()
Raising().run()
"""
    with run_runtime(tmp_path, stubs, kernel) as runtime:
        code, details = refusal(stream(runtime, requests("1", "0", "2")))
        assert (code, details) == (
            grpc.StatusCode.INTERNAL,
            "the kernel failed: ZeroDivisionError: division by zero",
        )
        assert answers(runtime, "4") == ["0.25"]


@pytest.mark.parametrize("end", ["sys.exit(0)", "sys.exit('broken')", "os._exit(3)"])
def test_a_kernel_that_ends_the_process_is_no_clean_end_and_leaves_no_client_waiting(
    stubs: Path, tmp_path: Path, end: str
) -> None:
    kernel = f"""
class Ending(Kernel):
    def on_task_invoke(self, task):
        {end}
Ending().run()
"""
    with run_runtime(tmp_path, stubs, kernel) as runtime:
        code, _ = refusal(stream(runtime, requests("x")))
        assert code == grpc.StatusCode.UNAVAILABLE
        assert runtime.process.wait(timeout=60) != 0


def test_a_server_that_fails_ends_the_process(stubs: Path, tmp_path: Path) -> None:
    # The kernel is foreign code in the same process: here it stops the server's event loop.
    kernel = """
class Breaking(Kernel):
    def on_task_invoke(self, task):
        loop = task._request._loop
        loop.call_soon_threadsafe(loop.stop)
Breaking().run()
"""
    with run_runtime(tmp_path, stubs, kernel) as runtime:
        call = stream(runtime, requests("x"))
        assert runtime.process.wait(timeout=60) != 0
        call.cancel()
        log = runtime.logs()
    assert "Event loop stopped before Future completed" in log
    assert "error: the server failed" in log


@pytest.mark.parametrize(
    ("kernel", "says"),
    [
        ("class K(Kernel):\n def on_kernel_start(self, c): raise OSError('no weights')\nK().run()", "no weights"),
        ("class K(Kernel): pass\n", "ended without serving"),
        ("import nothing_like_it\n", "No module named 'nothing_like_it'"),
    ],
)
def test_a_kernel_that_cannot_start_ends_with_a_reason(stubs: Path, tmp_path: Path, kernel: str, says: str) -> None:
    with run_runtime(tmp_path, stubs, kernel) as runtime:
        output, _ = runtime.process.communicate(timeout=60)
        assert runtime.process.returncode == 1
        assert says in output


def test_without_a_key_nothing_is_served(stubs: Path, tmp_path: Path) -> None:
    with run_runtime(tmp_path, stubs, ECHO, STREAM_TOKEN_KEY="") as runtime:
        output, _ = runtime.process.communicate(timeout=60)
        assert runtime.process.returncode == 1
        assert "STREAM_TOKEN_KEY (hex) and DEPLOYMENT must be set" in output


def test_only_a_token_for_this_deployment_opens_a_stream(stubs: Path, tmp_path: Path) -> None:
    import stream_pb2

    with run_runtime(tmp_path, stubs, ECHO) as runtime:
        refused = {
            "other model": stream(runtime, requests(token=sign_token(KEY, Claims("other", None, None)))),
            "forged": stream(runtime, requests(token=sign_token(b"x" * 32, Claims("model", None, None)))),
            "expired": stream(runtime, requests(token=sign_token(KEY, Claims("model", None, 1)))),
            "data first": stream(runtime, iter([stream_pb2.Request(data=b"x")])),
            "nothing": stream(runtime, iter([])),
            "later forged": stream(runtime, [*requests("x"), stream_pb2.Request(token="no")]),
        }
        codes = {name: refusal(call)[0] for name, call in refused.items()}
        assert codes.pop("other model") == grpc.StatusCode.PERMISSION_DENIED
        assert set(codes.values()) == {grpc.StatusCode.UNAUTHENTICATED}
        again = [*requests("a"), *requests("b")]
        assert [response.data for response in stream(runtime, again)] == [b"a", b"b"]


def test_a_refusal_comes_while_the_client_still_sends(stubs: Path, tmp_path: Path) -> None:
    with run_runtime(tmp_path, stubs, ECHO) as runtime:
        more: queue.Queue[Any] = queue.Queue()
        for message in requests("x", token="forged"):
            more.put(message)
        assert refusal(stream(runtime, iter(more.get, None)))[0] == grpc.StatusCode.UNAUTHENTICATED
        more.put(None)


def test_requests_of_a_client_that_left_never_reach_the_kernel(stubs: Path, tmp_path: Path) -> None:
    kernel = f"""
class Counting(Kernel):
    seen = []
    def on_task_invoke(self, task):
        self.seen.append(task.get_input_data())
        if task.get_input_data() == "first":
            open({str(tmp_path / "started")!r}, "w").close()
            while not os.path.exists({str(tmp_path / "go")!r}):
                time.sleep(0.01)
        task.set_output_data(json.dumps(self.seen))
Counting().run()
"""
    with run_runtime(tmp_path, stubs, kernel) as runtime:
        first = stream(runtime, requests("first"))
        wait_until((tmp_path / "started").exists)
        left = stream(runtime, requests(*["left"] * 10))
        let_pass(runtime)
        left.cancel()
        let_pass(runtime)
        (tmp_path / "go").touch()
        assert [response.data for response in first] == [b'["first"]']
        assert json.loads(answers(runtime, "last")[0]) == ["first", "last"]


def test_a_stream_tells_the_id_it_was_given(stubs: Path, tmp_path: Path) -> None:
    with run_runtime(tmp_path, stubs, ECHO) as runtime:
        call = stream(runtime, requests("x"), metadata=(("request_id", "7"),))
        assert [response.data for response in call] == [b"x"]
        assert dict(call.trailing_metadata())["request_id"] == "7"


def test_the_kernel_is_told_its_model(stubs: Path, tmp_path: Path) -> None:
    kernel = """
class Told(Kernel):
    def on_kernel_start(self, context):
        self.told = [context.get_instance_id(), json.loads(context.get_model_description())]
    def on_task_invoke(self, task):
        task.set_output_data(json.dumps([*self.told, os.environ["REDHARE_MODEL_NAME"], os.getcwd()]))
Told().run()
"""
    model = tmp_path / "model"
    model.mkdir()
    attributes = [{"key": "a", "value": "b"}]
    (model / "model.json").write_text(json.dumps({"weight_path": "w.bin", "attributes": attributes}))
    with run_runtime(tmp_path, stubs, kernel) as runtime:
        instance, description, name, folder = json.loads(answers(runtime, "x")[0])
    assert (instance, name, folder) == ("r1", "model", str(model))
    assert description["model_path"] == str(model)
    assert (description["weight_path"], description["attributes"]) == ("w.bin", attributes)


def test_each_file_of_a_task_is_a_request_and_its_answer_a_file(stubs: Path, tmp_path: Path) -> None:
    with run_runtime(tmp_path, stubs, ECHO) as runtime:
        files = {f"{number}.json": f"text {number}" for number in range(100)} | {"deep/er.txt": "below"}
        reply, output = run_task(runtime, files)
        assert (reply.exit_code, reply.detail) == (0, "")
        assert output == files
        assert (runtime.tasks_dir / "run" / "progress" / "latest").read_text() == "1.0 101 of 101 files\n"
        reply, output = run_task(runtime, {}, "empty")
        assert (reply.exit_code, output) == (1, {})
        assert "the input has no file" in reply.detail


def test_a_task_fails_with_the_file_that_the_kernel_failed_on(stubs: Path, tmp_path: Path) -> None:
    kernel = """
class Raising(Kernel):
    def on_task_invoke(self, task):
        task.set_output_data(str(int(task.get_input_data())))
Raising().run()
"""
    with run_runtime(tmp_path, stubs, kernel) as runtime:
        reply, _ = run_task(runtime, {"a.txt": "1", "b.txt": "one"})
        assert reply.exit_code == 1
        assert reply.detail.startswith("b.txt: the kernel failed: ValueError: invalid literal")


def test_a_task_touches_no_folder_but_a_runs(stubs: Path, tmp_path: Path) -> None:
    import tasks_pb2
    import tasks_pb2_grpc

    with run_runtime(tmp_path, stubs, ECHO) as runtime:
        good = runtime.tasks_dir / "r" / "input"
        good.mkdir(parents=True)
        (runtime.tasks_dir / "r" / "link").symlink_to(tmp_path)
        for bad in (str(tmp_path), str(runtime.tasks_dir / "r"), str(runtime.tasks_dir / "r" / "link"), "/etc", ""):
            for field, value in (("input_dir", bad), ("output_dir", bad), ("progress_file", f"{bad}/latest")):
                request = tasks_pb2.RunRequest(**{"input_dir": str(good), "output_dir": str(good), field: value})
                with pytest.raises(grpc.RpcError) as caught:
                    tasks_pb2_grpc.TasksStub(runtime.channel).Run(request, timeout=60, wait_for_ready=True)
                assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert not list(tmp_path.rglob("latest"))


def test_term_lets_open_streams_finish_and_shuts_the_kernel_down(stubs: Path, tmp_path: Path) -> None:
    kernel = f"""
class Slow(Kernel):
    def on_task_invoke(self, task):
        open({str(tmp_path / "started")!r}, "w").close()
        while not os.path.exists({str(tmp_path / "go")!r}):
            time.sleep(0.01)
        task.set_output_data("done")
    def on_kernel_shutdown(self):
        print("cleaned up")
Slow().run()
"""
    with run_runtime(tmp_path, stubs, kernel) as runtime:
        call = stream(runtime, requests("x"))
        wait_until((tmp_path / "started").exists)
        runtime.process.terminate()
        (tmp_path / "go").touch()
        assert [response.data for response in call] == [b"done"]
        output, _ = runtime.process.communicate(timeout=60)
        assert runtime.process.returncode == 0
        assert "cleaned up" in output
