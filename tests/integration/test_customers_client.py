"""The requests of the customer's own client, unmodified: with mount points, and ids in capitals."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.integration.public_door import serve_door
from tests.running_api import RunningApi
from tests.zips import make_zip

MOUNTPOINTS = {"input_mountpoint": "/input", "output_mountpoint": "/output", "model_mountpoint": "/model"}


@pytest.fixture
def tasks(private_api: RunningApi) -> Iterator[str]:
    """The URL that models and tasks are posted to."""
    with serve_door(private_api.url) as url:
        yield f"{url}/api/tasks/"


def register(url: str, human_readable_id: str, **more: str) -> requests.Response:
    params = {
        "container_tag": "mathiser/inference_server_models:hnoar",
        "human_readable_id": human_readable_id,
        "description": "organs at risk",
        "model_available": True,
        "use_gpu": True,
        **more,
    }
    return requests.post(url=url, params=params, files={"zip_file": make_zip({"model": b"1"})}, timeout=60)


def test_a_model_is_registered_and_used_as_that_client_does(tasks: str, tmp_path: Path) -> None:
    path = tmp_path / "input.zip"
    path.write_bytes(make_zip({"ct.nii": b"1"}))
    res = register(tasks, "HN_OAR_CT_DCPT", **MOUNTPOINTS)
    assert res.ok, res.text
    assert res.json()["human_readable_id"] == "HN_OAR_CT_DCPT"
    with path.open("br") as r:
        res = requests.post(
            url=tasks, params={"human_readable_id": "HN_OAR_CT_DCPT"}, files={"zip_file": r}, timeout=60
        )
    assert res.ok, res.text
    assert requests.get(url=f"{tasks}{res.json()}", timeout=60).status_code == 551


@pytest.mark.parametrize("name", MOUNTPOINTS)
@pytest.mark.parametrize("path", ["/api/tasks/", "/api/models/"])
def test_any_other_mount_point_is_refused_by_its_value(tasks: str, path: str, name: str) -> None:
    url = tasks.replace("/api/tasks/", path)
    assert register(url, "kept", **MOUNTPOINTS).status_code == 200
    res = register(url, "refused", **{**MOUNTPOINTS, name: "/data"})
    assert (res.status_code, res.json()["error"]) == (422, "InvalidRequest")
    assert f"{name} is {MOUNTPOINTS[name]} for every model; leave it out, or send that" in res.json()["detail"]


@pytest.mark.parametrize("replace", ["true", "false"])
def test_an_id_is_unique_regardless_of_case(tasks: str, replace: str) -> None:
    assert register(tasks, "HN_oar").ok
    res = register(tasks, "hn_OAR", replace=replace)
    assert (res.status_code, res.json()["error"]) == (409, "ModelExists")
    assert "'HN_oar' is registered, and ids are unique regardless of case" in res.json()["detail"]
    assert register(tasks, "HN_oar", replace="true").json()["version"] == 2


def test_of_ids_that_differ_in_case_and_come_at_once_one_is_registered(tasks: str) -> None:
    spelled = ["brain", "Brain", "BRAIN", "bRAIN", "BrAiN", "braiN"]
    with ThreadPoolExecutor(len(spelled)) as pool:
        answers = list(pool.map(lambda name: register(tasks, name), spelled))
    assert sorted(answer.status_code for answer in answers) == [200, *[409] * 5]


def test_a_deleted_id_comes_back_as_it_is_spelled_then(tasks: str) -> None:
    models = tasks.replace("/tasks/", "/models/")
    assert register(tasks, "liver").ok
    assert requests.delete(f"{models}liver", timeout=60).status_code == 204
    assert register(tasks, "Liver").json()["version"] == 2
    assert [model["human_readable_id"] for model in requests.get(models, timeout=60).json()] == ["Liver"]
