"""Calls through the gateway while tasks have their turn on the GPU: they wait for it, and none is refused."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from contract.claims import ClaimRequest
from contract.deployments import ReplicaAssignment, ReplicaBeat, ReplicaClaim, ReplicaEnd, ReplicaReason, ReplicaStatus
from contract.schemas import Assignment, Commit
from contract.statuses import Status
from tests.integration.callers import Callers
from tests.integration.container_watch import watch_containers
from tests.integration.grpc_harness import run_harness_gateway, status_of
from tests.integration.replica_harness import GPU, replica_harness
from tests.running_api import RunningApi, run_private_api
from tests.services import require_docker
from tests.waiting import PATIENCE_S, check_for, wait_until
from tests.zips import make_zip

YIELD_AFTER = timedelta(seconds=3)
ECHO = "/user.Own/Echo"
HELD_STREAM = "/user.Own/HeldStream"


@pytest.fixture
def api(postgres_url: str, tmp_path: Path) -> Iterator[RunningApi]:
    with run_private_api(postgres_url, tmp_path / "data", yield_after=YIELD_AFTER) as api:
        yield api


@dataclass
class GpuHost:
    """A consumer with a GPU whose replicas are processes."""

    api: RunningApi
    name: str = "ada"

    def register(self, model: str) -> None:
        query: dict[str, Any] = {"human_readable_id": model, "container_tag": "image:1", "use_gpu": True}
        with self.api.client() as http:
            http.post("/api/models/", params=query).raise_for_status()

    def deploy(self, model: str, **serving: Any) -> None:
        with self.api.client() as http:
            http.post(f"/api/models/{model}/deployment", json={"port": 50051} | serving).raise_for_status()

    def show(self, model: str) -> dict[str, Any]:
        with self.api.client() as http:
            found: dict[str, Any] = http.get(f"/api/models/{model}/deployment").raise_for_status().json()
            return found

    def submit(self, model: str) -> str:
        query = {"human_readable_id": model}
        with self.api.client() as http:
            answer = http.post(
                "/api/tasks/", params=query, content=make_zip(), headers={"Content-Type": "application/zip"}
            )
            uid: str = answer.raise_for_status().json()
            return uid

    def cancel(self, uid: str) -> None:
        with self.api.client() as http:
            http.post(f"/api/tasks/{uid}/cancel").raise_for_status()

    def claim_replica(self) -> ReplicaAssignment | None:
        with self.api.consumer() as client:
            return client.claim_replica(ReplicaClaim.model_validate({"consumer": self.name, "gpu_uuid": GPU}))

    def claim_task(self) -> Assignment | None:
        with self.api.consumer() as client:
            return client.claim(ClaimRequest.model_validate({"consumer": self.name, "gpu_uuid": GPU}))

    def finish(self, held: Assignment) -> None:
        with self.api.consumer() as client:
            stored = client.upload_output(held.uid, held.fence, [make_zip()])
            commit = Commit(consumer=self.name, sha256=stored.sha256, size_bytes=stored.size_bytes)
            client.commit(held.uid, held.fence, commit)

    def beat(self, held: ReplicaAssignment, address: str) -> bool:
        """Whether the replica should stop."""
        with self.api.consumer() as client:
            beat = ReplicaBeat(consumer=self.name, ready=True, address=address)
            return client.beat_replica(held.uid, held.fence, beat).stop

    def end(self, held: ReplicaAssignment) -> None:
        with self.api.consumer() as client:
            client.end_replica(held.uid, held.fence, ReplicaEnd(consumer=self.name, reason=ReplicaReason.SURPLUS))

    @contextmanager
    def host(self) -> Iterator[tuple[ReplicaAssignment, str, subprocess.Popen[str]]]:
        """Claim the replica that is wanted, and say that it is ready: its assignment, address and process."""
        claims: list[ReplicaAssignment] = []

        def claim() -> bool:
            got = self.claim_replica()
            claims.extend([got] if got else [])
            return got is not None

        wait_until(claim, "a replica is wanted")
        command = [sys.executable, "-m", "tests.integration.grpc_backend", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                address = f"127.0.0.1:{int(process.stdout.readline())}"
                self.beat(claims[0], address)
                yield claims[0], address, process
            finally:
                process.kill()


def test_calls_wait_while_tasks_have_their_turn_and_a_stream_without_end_ends(api: RunningApi) -> None:
    host = GpuHost(api)
    for model in ("m", "batch"):
        host.register(model)
    host.deploy("m", replicas_min=1, drain_timeout_s=5)
    application = ("application", "m")
    with run_harness_gateway(api.url) as gateway, host.host() as (held, address, process):
        wait_until(lambda: gateway.server.table.deployments["m"].replicas, "the replica is in the table")
        with Callers(gateway, ECHO, (application, ("pause", "0.05"))).calling() as callers:
            stream = gateway.stream(HELD_STREAM)(iter([b"x"]), metadata=(application,), timeout=PATIENCE_S)
            assert next(stream) == b"open"
            of_turn = host.submit("batch")
            assert host.claim_task() is None
            wait_until(lambda: host.show("m")["replicas"][0]["status"] == "draining", "it leaves its GPU")
            late = host.submit("batch")
            wait_until(lambda: host.beat(held, address), "the stream has had its time")
            process.kill()
            host.end(held)
            assert status_of(lambda: next(stream)).code() is grpc.StatusCode.UNAVAILABLE
            assert host.claim_replica() is None
            task = host.claim_task()
            assert task is not None
            assert task.uid == of_turn
            wait_until(lambda: gateway.server.table.deployments["m"].load(0).queued == 3, "every call waits")
            answered = callers.answered
            check_for(1, lambda: callers.answered == answered and not callers.refused)
            wait_until(lambda: "left its GPU to tasks" in (host.show("m")["detail"] or ""), "the deployment says so")
            host.finish(task)
            assert host.claim_task() is None, "what came later waits for the next turn"
            # Else it would have its turn in 3 s: on a slow machine before the calls are answered.
            host.cancel(late)
            with host.host():
                wait_until(lambda: callers.answered > answered + 30, "calls are answered again")
                callers.stop()
        assert callers.refused == []


def test_tasks_and_calls_take_turns_in_containers(api: RunningApi, tmp_path: Path) -> None:
    require_docker()
    with replica_harness(api, tmp_path / "work") as harness, run_harness_gateway(api.url) as gateway:
        for model in ("warm", "batch"):
            harness.register(model, use_gpu=True)
        with watch_containers(harness.name) as watch, harness.consumer(gpu_uuid=GPU):
            harness.deploy()
            first = harness.replica()
            wait_until(lambda: gateway.server.table.deployments["warm"].replicas, "the replica is in the table")
            with Callers(gateway, "/tests.Echo/Say", (("application", "warm"),)).calling() as callers:
                wait_until(lambda: callers.answered > 10)
                uid = harness.submit("batch", sleep_s=1)
                wait_until(lambda: harness.task(uid).status is Status.FINISHED)
                ended = harness.replica(ReplicaStatus.ENDED)
                assert (ended.uid, ended.reason) == (first.uid, ReplicaReason.EVICTED)
                assert harness.replica().uid != first.uid
                answered = callers.answered
                wait_until(lambda: callers.answered > answered + 10)
            assert callers.refused == []
            assert watch.history == [
                ("start", "replica"),
                ("die", "replica"),
                ("start", "task"),
                ("die", "task"),
                ("start", "replica"),
            ]
