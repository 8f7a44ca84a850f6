"""What operators read of an error: never what the owner of a task called a file."""

import asyncio
import os
import shutil
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from contract.errors import InferenceError, InvalidRequest, RouteNotFound
from contract.statuses import Reason
from job_consumer.engines import RunKey, RunKind
from job_consumer.error_texts import operators_text
from job_consumer.output.failures import ModelFailed
from job_consumer.run_disk import DiskFull
from job_consumer.workspace import WorkDir
from kit.http_errors import install_error_handlers

UID = "c0ffee00" * 8
MARK = "SMITH^JOHN"


@pytest.fixture
def work(tmp_path: Path) -> WorkDir:
    return WorkDir(tmp_path / "work", "ada")


def failure_at(path: Path) -> OSError:
    with pytest.raises(FileNotFoundError) as raised:
        path.read_bytes()
    return raised.value


def test_the_name_of_a_file_of_a_task_is_left_out(work: WorkDir) -> None:
    workspace = work.open_workspace(RunKey(UID, 3))
    for folder in (workspace.input_dir, workspace.output_dir):
        error = failure_at(folder / MARK / "scan.dcm")
        assert MARK in str(error)
        assert operators_text(error) == f"FileNotFoundError: No such file or directory: {folder}"


def test_so_is_that_of_a_task_inside_a_replica(work: WorkDir) -> None:
    replica = work.open_replica(RunKey(UID, 1, RunKind.REPLICA))
    name = RunKey(UID[::-1], 2, server="beef").name
    error = failure_at(replica.outputs / name / MARK / f"{UID}-7" / "scan.dcm")
    assert operators_text(error) == f"FileNotFoundError: No such file or directory: {replica.outputs / name}"


def test_a_name_relative_to_a_folder_is_left_out(work: WorkDir) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        os.open(MARK, os.O_RDONLY, dir_fd=os.open(work.root, os.O_RDONLY))
    assert operators_text(raised.value) == "FileNotFoundError: No such file or directory"


def test_both_names_of_a_rename_are_cut(work: WorkDir) -> None:
    output = work.open_workspace(RunKey(UID, 3)).output_dir
    with pytest.raises(FileNotFoundError) as raised:
        (output / MARK).rename(work.root / "elsewhere")
    assert operators_text(raised.value).endswith(f": {output} -> {work.root / 'elsewhere'}")


def test_our_own_words_are_kept() -> None:
    assert operators_text(DiskFull("the host's disk has 3 bytes left")) == "the host's disk has 3 bytes left"


def test_the_places_of_our_own_files_are_kept(work: WorkDir) -> None:
    workspace = work.open_workspace(RunKey(UID, 3))
    shutil.rmtree(workspace.root)
    assert operators_text(failure_at(workspace.clock)).endswith(f": {workspace.root}")
    assert operators_text(failure_at(work.root / "models" / "x")).endswith(f": {work.root / 'models' / 'x'}")


def test_a_failed_model_is_logged_by_reason_and_exit_code() -> None:
    failed = ModelFailed(Reason.EXIT_CODE, f"its log says: {MARK}", 3)
    assert failed.operators_text == "reason=exit_code exit_code=3; its status and its log say more to its owner"
    missing = ModelFailed(Reason.IMAGE_NOT_FOUND, "the image is not there", said="the registry: 404")
    assert missing.operators_text == "reason=image_not_found: the registry: 404"


def test_a_path_that_names_a_file_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    app = FastAPI()
    install_error_handlers(app, unknown=InferenceError, invalid=InvalidRequest, no_route=RouteNotFound)

    @app.get("/api/tasks/{uid}/output/files/{path:path}")
    def fetch(uid: str, path: str) -> None:
        raise KeyError(uid, path)

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)

    async def ask() -> int:
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return (await client.get(f"/api/tasks/{UID}/output/files/{MARK}/scan.dcm")).status_code

    assert asyncio.run(ask()) == 500
    assert caplog.messages == [f"GET /api/tasks/{UID}/output/files/{{path:path}} failed"]
