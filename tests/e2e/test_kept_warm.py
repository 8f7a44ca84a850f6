"""A model that is kept warm: hosted on the network of replicas, and adopted after a power cut."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from job_consumer.engines import LABEL
from standalone.server import REPLICA_NETWORK
from tests.e2e.compose import compose_system
from tests.e2e.inside import run_inside
from tests.e2e.systems import System, standalone_system, trust
from tests.engine_client import engine_client
from tests.integration.replica_harness import backend_image
from tests.services import require_docker
from tests.waiting import wait_until
from tests.zips import make_zip

SAY = """
import grpc
with grpc.insecure_channel("127.0.0.1:9100") as channel:
    print(channel.unary_unary("/tests.Echo/Say")(b"alone", timeout=60))
"""
MODEL = "/api/models/warm/deployment"


@pytest.fixture(params=["standalone", "compose"])
def system(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[System]:
    require_docker()
    make = standalone_system if request.param == "standalone" else compose_system
    with make(tmp_path) as running:
        yield running


def replicas(http: httpx.Client, status: str) -> list[dict[str, Any]]:
    answer = http.get(MODEL)
    answer.raise_for_status()
    return [replica for replica in answer.json()["replicas"] if replica["status"] == status]


def containers(system: System, kind: str = "replica") -> list[dict[str, Any]]:
    client = engine_client()
    try:
        labels = [f"{LABEL}.consumer={system.consumer_name()}", f"{LABEL}.{kind}"]
        found: list[dict[str, Any]] = client.containers(all=True, filters={"label": labels})
        return found
    finally:
        client.close()


def test_a_model_is_kept_warm_across_a_power_cut_of_its_consumer(system: System) -> None:
    query = {"human_readable_id": "warm", "container_tag": backend_image(), "pull_policy": "never"}
    with httpx.Client(base_url=system.url, timeout=60, trust_env=False, verify=trust(system.verify)) as http:
        body = make_zip({"behaviour.json": json.dumps({}).encode()})
        headers = {"Content-Type": "application/zip"}
        http.post("/api/models/", params=query | {"model_available": "true"}, content=body, headers=headers)
        http.post(MODEL, json={"port": 9100, "replicas_min": 1}).raise_for_status()
        wait_until(lambda: replicas(http, "ready"), system.logs)
        (replica,) = replicas(http, "ready")
        (container,) = containers(system)
        (guard,) = containers(system, "guard")
        (network,) = guard["NetworkSettings"]["Networks"]
        assert network == REPLICA_NETWORK or network.endswith("_replicas")
        system.consumer.kill()
        assert run_inside(container["Id"], SAY) == "b'alone'\n"
        system.consumer.start()
        system.wait_ready()
        ready = f"replica={replica['uid']} ready at {replica['address']}"
        wait_until(lambda: system.consumer.output().count(ready) == 2, system.logs)
        assert [found["uid"] for found in replicas(http, "ready")] == [replica["uid"]]
        assert [found["Id"] for found in containers(system)] == [container["Id"]]
        http.delete(MODEL).raise_for_status()
        wait_until(lambda: not containers(system) and not containers(system, "guard"), system.logs)


def test_ctrl_c_leaves_no_container_and_the_next_start_runs_again_what_was_ended(tmp_path: Path) -> None:
    require_docker()
    with standalone_system(tmp_path) as system:
        query = {"container_tag": backend_image(), "pull_policy": "never"}
        headers = {"Content-Type": "application/zip"}
        with httpx.Client(base_url=system.url, timeout=60, trust_env=False) as http:
            for model in ("warm", "cold"):
                named = query | {"human_readable_id": model, "model_available": "true"}
                http.post("/api/models/", params=named, content=make_zip({"behaviour.json": b"{}"}), headers=headers)
            http.post(MODEL, json={"port": 9100, "replicas_min": 1}).raise_for_status()
            body = make_zip({"do.json": json.dumps({"sleep_s": 3600}).encode()})
            uid = http.post("/api/tasks/", params={"human_readable_id": "cold"}, content=body, headers=headers).json()
            wait_until(lambda: replicas(http, "ready") and containers(system, "task"), system.logs)
            (replica,) = replicas(http, "ready")
            system.processes[0].end(signal.SIGINT)
            assert not containers(system)
            assert not containers(system, "task")
            system.processes[0].start()
            system.wait_ready()
            wait_until(lambda: containers(system, "task"), system.logs)
            assert http.get(f"/api/tasks/{uid}/status").json()["attempt"] == 2
            wait_until(lambda: replicas(http, "ready"), system.logs)
            assert [found["uid"] for found in replicas(http, "ready")] != [replica["uid"]]
            http.post(f"/api/tasks/{uid}/cancel").raise_for_status()
            http.delete(MODEL).raise_for_status()
            wait_until(lambda: not containers(system) and not containers(system, "task"), system.logs)
