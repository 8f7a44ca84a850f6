"""A model that is kept warm on a standalone server that is stopped; test_scenarios.py has one through a power cut."""

import json
import signal
from pathlib import Path

import httpx

from tests.e2e.systems import standalone_system
from tests.e2e.warm_models import MODEL, labelled_containers, replicas
from tests.integration.replica_harness import backend_image
from tests.services import require_docker
from tests.waiting import wait_until
from tests.zips import make_zip


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
            wait_until(lambda: replicas(http, "ready") and labelled_containers(system, "task"), system.logs)
            (replica,) = replicas(http, "ready")
            system.processes[0].end(signal.SIGINT)
            assert not labelled_containers(system)
            assert not labelled_containers(system, "task")
            system.processes[0].start()
            system.wait_ready()
            wait_until(lambda: labelled_containers(system, "task"), system.logs)
            assert http.get(f"/api/tasks/{uid}/status").json()["attempt"] == 2
            wait_until(lambda: replicas(http, "ready"), system.logs)
            assert [found["uid"] for found in replicas(http, "ready")] != [replica["uid"]]
            http.post(f"/api/tasks/{uid}/cancel").raise_for_status()
            http.delete(MODEL).raise_for_status()
            wait_until(lambda: not labelled_containers(system) and not labelled_containers(system, "task"), system.logs)
