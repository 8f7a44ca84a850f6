"""A model that is kept warm: hosted on the network of replicas, and adopted after a power cut."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import grpc
import httpx
import pytest

from job_consumer.engine import LABEL
from standalone.server import REPLICA_NETWORK
from tests.e2e.compose import compose_system
from tests.e2e.systems import System, standalone_system, trust, wait_for
from tests.integration.replica_bench import backend_image
from tests.services import require_docker
from tests.zips import make_zip

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


def containers(system: System) -> list[dict[str, Any]]:
    client = docker.APIClient(version="auto")
    try:
        labels = [f"{LABEL}.consumer={system.consumer_name()}", f"{LABEL}.replica"]
        found: list[dict[str, Any]] = client.containers(all=True, filters={"label": labels})
        return found
    finally:
        client.close()


def test_a_model_is_kept_warm_across_a_power_cut_of_its_consumer(system: System) -> None:
    query = {"human_readable_id": "warm", "container_tag": backend_image(), "pull_policy": "never"}
    with httpx.Client(base_url=system.url, timeout=30, trust_env=False, verify=trust(system.verify)) as http:
        body = make_zip({"behaviour.json": json.dumps({}).encode()})
        headers = {"Content-Type": "application/zip"}
        http.post("/api/models/", params=query | {"model_available": "true"}, content=body, headers=headers)
        http.post(MODEL, json={"port": 9100, "replicas_min": 1}).raise_for_status()
        wait_for(lambda: replicas(http, "ready"), 60, system.logs)
        (replica,) = replicas(http, "ready")
        (container,) = containers(system)
        (network,) = container["NetworkSettings"]["Networks"]
        assert network == REPLICA_NETWORK or network.endswith("_replicas")
        system.consumer.kill()
        with grpc.insecure_channel(replica["address"]) as channel:
            assert channel.unary_unary("/tests.Echo/Say")(b"alone", timeout=10) == b"alone"
        system.consumer.start()
        system.wait_ready()
        ready = f"replica={replica['uid']} ready at {replica['address']}"
        wait_for(lambda: system.consumer.output().count(ready) == 2, 60, system.logs)
        assert [found["uid"] for found in replicas(http, "ready")] == [replica["uid"]]
        assert [found["Id"] for found in containers(system)] == [container["Id"]]
        http.delete(MODEL).raise_for_status()
        wait_for(lambda: not containers(system), 60, system.logs)
