"""A standalone server whose only disk a model fills: the model is told so, and the server goes on."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.claims import ClaimRequest
from contract.schemas import ConsumerRegistration
from contract.statuses import Reason
from job_consumer.container_spec import Limits, Sandbox
from job_consumer.context import ConsumerContext
from job_consumer.engines import RunKey
from job_consumer.engines.process.engine import ProcessEngine
from job_consumer.output.failures import ModelFailed
from job_consumer.settings import Credential
from job_consumer.tasks.verdicts import keep_verdict
from job_consumer.worker import Worker
from job_consumer.workspace import WorkDir
from standalone.server import Options, standalone_server
from tests.databases import copy_sqlite
from tests.integration.public_door import PLAIN
from tests.running_api import run_private_api
from tests.small_disk import MIB, small_disk
from tests.waiting import wait_until
from tests.zips import make_zip

RESERVE = 8 * MIB
PROGRAM = b"""#!/bin/sh
case "$(cat "$INPUT_DIR/kind.txt")" in
greedy) while :; do cat /dev/zero >> "$OUTPUT_DIR/big"; sleep 0.01; done ;;
beside) cat /dev/zero > "$TMPDIR/big" ;;
*) echo done > "$OUTPUT_DIR/done.txt" ;;
esac
"""


class Server:
    """The public API of a standalone server."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http

    def register(self) -> None:
        self._post(
            "/api/models/?human_readable_id=writer&container_tag=process:run.sh&model_available=true",
            {"run.sh": PROGRAM},
        )

    def submit(self, kind: str) -> str:
        return str(self._post("/api/tasks/?human_readable_id=writer", {"kind.txt": kind.encode()}))

    def ended(self, uid: str) -> dict[str, Any]:
        """The task once it has ended."""
        found: dict[str, Any] = {}

        def look() -> bool:
            answer = self.http.get(f"/api/tasks/{uid}/status")
            found.update(answer.json() if answer.is_success else {})
            return found.get("status") in ("finished", "failed", "cancelled")

        wait_until(look, lambda: f"the end of a task: {found}")
        return found

    def _post(self, path: str, files: dict[str, bytes]) -> Any:
        headers = {"Content-Type": "application/zip"}
        return self.http.post(path, content=make_zip(files), headers=headers).raise_for_status().json()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("standalone")
    with small_disk(folder / "disk", 48 * MIB) as disk:
        options = Options(disk / "data", port=0, grpc_port=None, engine="process", disk_reserve_bytes=RESERVE)
        with standalone_server(options) as running, httpx.Client(base_url=running.url, **PLAIN) as http:
            made = Server(http)
            made.register()
            yield made


@pytest.mark.parametrize("kind", ["greedy", "beside"])
def test_a_model_that_fills_the_disk_fails_and_the_next_task_runs(server: Server, kind: str) -> None:
    uids = [server.submit(each) for each in (kind, "modest")]
    failed, finished = [server.ended(uid) for uid in uids]
    assert (failed["status"], failed["reason"]) == ("failed", "output_too_large")
    assert "bytes left, less than the reserve of 8388608: the run wrote" in failed["detail"]
    assert failed["attempt"] == 1
    assert finished["status"] == "finished"


def test_a_failure_that_was_not_told_yet_is_told_by_the_next_start(sqlite_template: Path, tmp_path: Path) -> None:
    with run_private_api(copy_sqlite(sqlite_template, tmp_path), tmp_path / "data") as api, api.client() as http:
        http.post("/api/models/?human_readable_id=echo&container_tag=echo:1").raise_for_status()
        headers = {"Content-Type": "application/zip"}
        content = make_zip({"a.txt": b"hello"})
        http.post("/api/tasks/?human_readable_id=echo", content=content, headers=headers).raise_for_status()
        registration = ConsumerRegistration(consumer="ada", accepts_cpu_tasks=True)
        with api.consumer() as client:
            held = client.claim(ClaimRequest(**registration.model_dump()))
            assert held is not None
            work = WorkDir(tmp_path / "work", "ada")
            workspace = work.open_workspace(RunKey(held.uid, held.fence))
            # Its run is removed already.
            keep_verdict(workspace, ModelFailed(Reason.EXIT_CODE, "the container ended with exit code 7", 7))
            context = ConsumerContext(
                credential=Credential("SERVICE_TOKEN", api.token),
                sandbox=Sandbox("ada", Limits(64 * MIB, None, 64, MIB, MIB, MIB)),
                api=client,
                engine=ProcessEngine(work_dir=tmp_path / "work"),
                work=work,
                stopping=threading.Event(),
            )
            worker = Worker(context, api.broker, registration, None)
            worker.take_stock()
            worker.adopt()
        status = http.get(f"/api/tasks/{held.uid}/status").json()
        assert (status["status"], status["reason"], status["exit_code"]) == ("failed", "exit_code", 7)
        assert work.workspaces() == []
