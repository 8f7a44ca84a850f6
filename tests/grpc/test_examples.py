"""What the examples' containers promise beyond the clients' scripts: errors, early ends, tasks, and a clean end."""

import json
import queue
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.grpc.containers import Container, container
from tests.grpc.scripts import ROOT
from tests.waiting import PATIENCE_S

EXAMPLES = ROOT / "examples"
SOON_S = 60


@pytest.fixture(scope="module")
def user_service(network: str) -> Iterator[Container]:
    with container("inference-server/user-service:1", network, 9000) as running:
        yield running


@pytest.fixture
def user_stub(user_service: Container, stubs: Path) -> Iterator[Any]:
    import user_defined_protos_pb2_grpc

    with grpc.insecure_channel(user_service.address) as channel:
        yield user_defined_protos_pb2_grpc.UserDefinedServiceStub(channel)


def message(name: str, num: int = 0) -> Any:
    import user_defined_protos_pb2

    return user_defined_protos_pb2.UserDefinedMessage(name=name, origin="here", num=num)


def error_of(call: Any) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        list(call())
    return caught.value


@pytest.mark.parametrize(
    ("image", "port", "service", "environment"),
    [
        ("user-service", 9000, "userdefinedprotos.UserDefinedService", {}),
        ("image-classifier", 9000, "imageexample.Preprocessing", {"GRPC_GATEWAY": "127.0.0.1:1"}),
        ("half-plus-two", 8500, "tensorflow.serving.PredictionService", {}),
        ("kserve-model", 8001, "inference.GRPCInferenceService", {}),
    ],
)
def test_a_server_tells_its_services_and_ends_cleanly_on_term(
    network: str, image: str, port: int, service: str, environment: dict[str, str]
) -> None:
    with container(f"inference-server/{image}:1", network, port, environment=environment) as running:
        with grpc.insecure_channel(running.address) as channel:
            assert service in ProtoReflectionDescriptorDatabase(channel).get_services()
            stub = health_pb2_grpc.HealthStub(channel)
            assert next(stub.Watch(health_pb2.HealthCheckRequest(), timeout=SOON_S)).status == 1
            check = health_pb2.HealthCheckRequest(service="no.Such")
            assert error_of(lambda: [stub.Check(check, timeout=SOON_S)]).code() == grpc.StatusCode.NOT_FOUND
        assert running.stop() == 0


def test_an_exception_that_nobody_handles_is_internal_with_its_stack(user_stub: Any) -> None:
    error = error_of(lambda: [user_stub.__call__(message("x" * 9000, -1), timeout=SOON_S)])
    assert error.code() == grpc.StatusCode.INTERNAL
    assert "ValueError: -1 is negative" in error.details()
    assert len(error.details()) <= 4096
    assert "request_id" in dict(error.trailing_metadata())


@pytest.mark.parametrize(("name", "code"), [("bye", grpc.StatusCode.OK), ("stranger", grpc.StatusCode.UNAUTHENTICATED)])
def test_a_service_may_end_a_stream_while_its_client_still_sends(
    user_stub: Any, name: str, code: grpc.StatusCode
) -> None:
    sent: queue.Queue[Any] = queue.Queue()
    sent.put(message("foo"))
    sent.put(message(name))
    call = user_stub.Chatting(iter(sent.get, None), timeout=SOON_S)
    if code is grpc.StatusCode.OK:
        assert [answer.greeting for answer in call] == ["Hello foo from here", "Hello bye from here"]
    else:
        assert error_of(lambda: call).code() == code
    assert call.code() == code
    sent.put(None)


def test_a_replica_that_stops_lets_its_streams_end(network: str, stubs: Path) -> None:
    import user_defined_protos_pb2_grpc

    with (
        container("inference-server/user-service:1", network, 9000) as running,
        grpc.insecure_channel(running.address) as channel,
    ):
        call = user_defined_protos_pb2_grpc.UserDefinedServiceStub(channel).Streaming(message("foo"), timeout=60)
        next(call)
        stopping = running.begin_to_stop()
        assert len(list(call)) == 9
        assert stopping.wait(PATIENCE_S) == 0
        assert running.wait() == 0


def test_a_kernel_runs_tasks_in_its_container(network: str, stubs: Path, tmp_path: Path) -> None:
    import tasks_pb2
    import tasks_pb2_grpc

    folders = task_folders(tmp_path)
    (folders / "run" / "input" / "one.json").write_text('{"key": 1, "data": "a bcd"}')
    model = tmp_path / "model"
    shutil.copytree(EXAMPLES / "grpc" / "kernel", model)
    given = {"STREAM_TOKEN_KEY": "00" * 32, "DEPLOYMENT": "text", "REDHARE_MODEL_NAME": "text"}
    mounts = {model: "/model:ro", folders: "/tasks"}
    with (
        container("inference-server/redhare:1", network, 9010, environment=given, mounts=mounts) as running,
        grpc.insecure_channel(running.address) as channel,
    ):
        request = tasks_pb2.RunRequest(task_uid="t", input_dir="/tasks/run/input", output_dir="/tasks/run/output")
        reply = tasks_pb2_grpc.TasksStub(channel).Run(request, timeout=60)
        assert (reply.exit_code, reply.detail) == (0, "")
    answer = json.loads((folders / "run" / "output" / "one.json").read_text())
    assert answer == {"key": 1, "data": {"words": 2, "mean_length": 2.0}, "batch": 1}


def test_ocr_answers_pages_and_tasks_with_the_networks_it_keeps_loaded(
    network: str, stubs: Path, tmp_path: Path
) -> None:
    import ocr_pb2
    import ocr_pb2_grpc
    import tasks_pb2
    import tasks_pb2_grpc

    lines = ["Spleen volume 212 ml", "No contrast agent was given"]
    page, model = tmp_path / "page.png", tmp_path / "model"
    run_example("make_page.py", page, *lines)
    run_example("build_model_zip.py", tmp_path / "model.zip")
    shutil.unpack_archive(tmp_path / "model.zip", model)
    folders = task_folders(tmp_path)
    shutil.copy(page, folders / "run" / "input")
    mounts = {model: "/model:ro", folders: "/tasks"}
    given = {"REPLICA_UID": "r1", "DEPLOYMENT": "ocr"}
    with (
        container("inference-server/ocr:1", network, 9000, environment=given, mounts=mounts) as running,
        grpc.insecure_channel(running.address) as channel,
    ):
        read = ocr_pb2_grpc.ReaderStub(channel).Read
        text = read(ocr_pb2.Page(image=page.read_bytes()), timeout=600)
        assert [line.text for line in text.lines] == lines
        error = error_of(lambda: [read(ocr_pb2.Page(image=b"no page"), timeout=60)])
        assert (error.code(), "cannot be decoded" in error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, True)

        run = tasks_pb2_grpc.TasksStub(channel).Run
        said = "/tasks/run/output/latest"
        request = tasks_pb2.RunRequest(
            task_uid="t", input_dir="/tasks/run/input", output_dir="/tasks/run/output", progress_file=said
        )
        assert run(request, timeout=600).exit_code == 0
        assert (folders / "run" / "output" / "latest").read_text() == "1.0 page 1 of 1\n"
        (told,) = json.loads((folders / "run" / "output" / "text.json").read_text())["pages"]
        assert [line["text"] for line in told["lines"]] == lines
        (folders / "run" / "input" / "page.png").write_bytes(b"no page")
        reply = run(request, timeout=600)
        assert (reply.exit_code, "cannot be decoded" in reply.detail) == (1, True)
        assert running.stop() == 0


def task_folders(folder: Path) -> Path:
    """Folders of one run, as a consumer prepares them: the container's user may write."""
    tasks = folder / "tasks"
    for name in ("input", "output"):
        (tasks / "run" / name).mkdir(parents=True)
        (tasks / "run" / name).chmod(0o777)
    return tasks


def run_example(script: str, *arguments: str | Path) -> None:
    subprocess.run(
        [sys.executable, EXAMPLES / "ocr" / script, *arguments], check=True, capture_output=True, timeout=120
    )
