"""The versions of a model over HTTP, through the door."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.integration.public_door import PLAIN, serve_door
from tests.running_api import RunningApi
from tests.waiting import wait_until
from tests.zips import make_zip

MODEL = "/api/models/scan"


@pytest.fixture
def http(private_api: RunningApi) -> Iterator[httpx.Client]:
    """A client of a door where everybody may register models; `scan` is one with three versions, each with a zip."""
    with serve_door(private_api.url) as url, httpx.Client(base_url=url, **PLAIN) as client:
        for number in range(1, 4):
            query = {"human_readable_id": "scan", "container_tag": f"scan:{number}", "model_available": "true"}
            data = make_zip({"weights": str(number).encode()})
            answer = client.post("/api/models/", params={**query, "replace": "true"}, files={"zip_file": data})
            assert answer.json()["version"] == number
        yield client


def submit(http: httpx.Client, model: str) -> httpx.Response:
    return http.post("/api/tasks/", params={"human_readable_id": model}, files={"zip_file": make_zip()})


def version_of(http: httpx.Client, answer: httpx.Response) -> int:
    version: int = http.get(f"/api/tasks/{answer.json()}/status").json()["model_version"]
    return version


def error_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]


def shown(http: httpx.Client) -> list[tuple[Any, ...]]:
    names = ("version", "container_tag", "default", "retired", "queued")
    return [tuple(view[name] for name in names) for view in http.get(f"{MODEL}/versions").json()]


def test_a_version_is_pinned_made_the_default_and_rolled_back(http: httpx.Client) -> None:
    assert version_of(http, submit(http, "scan")) == 3
    assert version_of(http, submit(http, "scan@1")) == 1
    assert http.patch(MODEL, json={"default_version": 2}).json()["container_tag"] == "scan:2"
    assert version_of(http, submit(http, "scan")) == 2
    assert shown(http) == [
        (3, "scan:3", False, False, 1),
        (2, "scan:2", True, False, 1),
        (1, "scan:1", False, False, 1),
    ]
    page = http.get(f"{MODEL}/versions", params={"limit": 1, "after": 3}).json()
    assert [view["version"] for view in page] == [2]
    assert http.get(f"{MODEL}@3").json()["version"] == 3
    assert http.get(f"{MODEL}%401").json()["version"] == 1
    assert http.get(MODEL).json()["version"] == 2
    assert [model["version"] for model in http.get("/api/models/").json()] == [2]


def test_no_id_with_an_at_sign_can_be_registered(http: httpx.Client) -> None:
    for name in ("scan@3", "@3", "a@b"):
        answer = http.post("/api/models/", params={"human_readable_id": name, "container_tag": "scan:1"})
        assert error_of(answer) == (422, "InvalidRequest")


def test_what_names_no_version_is_answered_like_an_unknown_model(http: httpx.Client) -> None:
    for reference in ("scan@9", "scan@latest", "scan@", "scan@01", "nobody@1"):
        assert error_of(submit(http, reference)) == (550, "ModelNotFound"), reference
        assert error_of(http.get(f"/api/models/{reference}")) == (550, "ModelNotFound"), reference
        assert error_of(http.post(f"/api/models/{reference}/deployment", json={"port": 1})) == (550, "ModelNotFound")
    assert "no version 9" in submit(http, "scan@9").json()["detail"]
    assert error_of(http.patch(MODEL, json={"default_version": 9})) == (550, "ModelNotFound")
    for path in (f"{MODEL}@1/versions", "/api/models/nobody/versions", "/api/models/Scan/versions"):
        assert error_of(http.get(path)) == (550, "ModelNotFound"), path


def test_retired_models_and_versions_take_no_tasks(http: httpx.Client) -> None:
    assert http.patch(f"{MODEL}/versions/1", json={"retired": True}).json()["retired"]
    assert error_of(submit(http, "scan@1")) == (409, "ModelRetired")
    assert error_of(http.post(f"{MODEL}@1/deployment", json={"port": 8001})) == (409, "ModelRetired")
    assert error_of(http.patch(f"{MODEL}/versions/3", json={"retired": True})) == (409, "ModelInUse")
    assert http.patch(MODEL, json={"retired": True, "description": "Closed"}).json()["retired"]
    assert error_of(submit(http, "scan")) == (409, "ModelRetired")
    (listed,) = http.get("/api/models/").json()
    assert (listed["retired"], listed["description"]) == (True, "Closed")
    assert not http.patch(MODEL, json={"retired": False}).json()["retired"]
    assert version_of(http, submit(http, "scan")) == 3


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"defualt_version": 2}, "unknown parameter 'defualt_version'"),
        ({"default_version": 0}, "default_version: "),
        ({"default_version": 2**31}, "default_version: "),
        ({"retired": "perhaps"}, "retired: "),
        ({"description": "x" * 4097}, "description: "),
        ([], "body: "),
        (None, "body: "),
    ],
)
def test_a_change_that_cannot_be_read_is_refused_with_the_reason(http: httpx.Client, body: Any, says: str) -> None:
    before = shown(http)
    answer = http.patch(MODEL, json=body)
    assert error_of(answer) == (422, "InvalidRequest")
    assert answer.json()["detail"].startswith(says)
    assert shown(http) == before
    assert http.patch(f"{MODEL}/versions/0", json={}).status_code == 422
    assert http.patch(f"{MODEL}/versions/x", json={}).status_code == 422


def test_a_deployment_of_a_pinned_version_is_that_of_the_model(http: httpx.Client) -> None:
    assert http.post(f"{MODEL}@2/deployment", json={"port": 8001}).json()["model_version"] == 2
    shown = http.get(f"{MODEL}/deployment").json()
    assert (shown["human_readable_id"], shown["model_version"]) == ("scan", 2)
    assert error_of(http.delete(f"{MODEL}/versions/2")) == (409, "ModelInUse")
    assert http.delete(f"{MODEL}/deployment").status_code == 204


def test_deleting_takes_the_zips_and_leaves_the_tasks(http: httpx.Client, private_api: RunningApi) -> None:
    uid = submit(http, "scan@1").json()
    refused = http.delete(f"{MODEL}/versions/1")
    assert error_of(refused) == (409, "ModelInUse")
    assert "tasks that have not ended: 1" in refused.json()["detail"]
    assert error_of(http.delete(MODEL)) == (409, "ModelInUse")
    assert http.post(f"/api/tasks/{uid}/cancel").is_success
    before = http.get(f"/api/tasks/{uid}").json()

    def zips() -> int:
        return sum(name.startswith("models/") for name in private_api.files())

    for _ in range(2):
        assert http.delete(f"{MODEL}/versions/1").status_code == 204
    wait_until(lambda: zips() == 2, "the zip of a deleted version stays")
    for _ in range(2):
        assert http.delete(MODEL).status_code == 204
    wait_until(lambda: zips() == 0, "the zips of a deleted model stay")
    assert error_of(http.delete(f"{MODEL}/versions/7")) == (550, "ModelNotFound")
    assert error_of(http.delete("/api/models/nobody")) == (550, "ModelNotFound")
    assert error_of(submit(http, "scan")) == (550, "ModelNotFound")
    assert http.get("/api/models/").json() == []
    assert http.get(f"/api/tasks/{uid}").json() == before
    status = http.get(f"/api/tasks/{uid}/status").json()
    assert (status["human_readable_id"], status["model_version"]) == ("scan", 1)
    answer = http.post("/api/models/", params={"human_readable_id": "scan", "container_tag": "scan:4"})
    assert (answer.status_code, answer.json()["version"]) == (200, 4)
