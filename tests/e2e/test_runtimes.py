"""A model with a runtime of its own: offered by the operator, asked for with `infer`, and given to its containers."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.e2e.client import door_of
from tests.e2e.images import UNTIL_TOLD, script_image
from tests.e2e.systems import System, standalone_system
from tests.engine_client import engine_client
from tests.integration.infer_harness import User
from tests.services import require_docker
from tests.waiting import wait_until

OFFERED = "io.containerd.runc.v2"
"""Another name for runc, which every Engine has beside it."""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    require_docker()
    with standalone_system(tmp_path_factory.mktemp("server"), extra=("--model-runtimes", f"{OFFERED},missing")) as made:
        yield made


def test_a_model_has_the_runtime_that_it_was_registered_with(system: System, tmp_path: Path) -> None:
    ada = User(tmp_path / "ada", INFERENCE_SERVER_URL=system.url)
    image = script_image(UNTIL_TOLD)
    for name, options in (("own", ("--runtime", OFFERED)), ("usual", ())):
        added = ada.pipes("models", "add", image, name, "--pull-policy", "never", *options)
        assert added.returncode == 0, added.stderr
    assert ["runtime", OFFERED] in [line.split() for line in ada.pipes("models", "show", "own").stdout.splitlines()]
    refused = ada.pipes("models", "add", image, "evil", "--runtime", "runsc")
    assert "the runtime runsc may not be asked for here: the operator offers io.containerd" in refused.stderr
    with door_of(system.url) as door, closing(engine_client()) as engine:
        runtimes = {}
        for name in ("own", "usual"):
            uid = door.submit(name, {"i": b""})
            door.wait_status(uid, "running")
            (container,) = engine.containers(filters={"label": f"inference-server.task={uid}"})
            runtimes[name] = engine.inspect_container(container["Id"])["HostConfig"]["Runtime"]
            door.http.delete(f"/api/tasks/{uid}")
            door.ended(uid)
    assert runtimes == {"own": OFFERED, "usual": "runc"}


def test_a_runtime_that_the_host_does_not_have_is_named(system: System) -> None:
    query = {"human_readable_id": "m", "container_tag": script_image("true"), "pull_policy": "never"}
    with httpx.Client(base_url=system.url, trust_env=False) as http, door_of(system.url) as door:
        assert http.post("/api/models/", params=query | {"runtime": "missing"}).status_code == 200
        uid = door.submit("m", {"i": b""})
        told = "no runtime missing: add it to"
        wait_until(lambda: told in (door.status(uid)["detail"] or ""), lambda: str(door.status(uid)))
