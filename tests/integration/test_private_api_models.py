"""Registering models over HTTP: what contradicts itself is refused, and versions stay what they were."""

from pathlib import Path

import httpx
import pytest

from contract.claims import ClaimRequest
from tests.running_api import RunningApi, run_private_api
from tests.unit.zip_corpus import LYING, Part, build
from tests.zips import make_zip

ZIP = {"Content-Type": "application/zip"}


def register(http: httpx.Client, data: bytes | None = None, **query: str) -> httpx.Response:
    params = {"human_readable_id": "scan", "container_tag": "scan:1", **query}
    return http.post("/api/models/", params=params, content=data, headers=ZIP if data is not None else {})


def error_of(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]


@pytest.fixture
def http(private_api: RunningApi):  # type: ignore[no-untyped-def]
    with private_api.client() as client:
        yield client


def test_a_model_is_registered_with_its_zip_and_listed(private_api: RunningApi, http: httpx.Client) -> None:
    answer = register(http, make_zip(), model_available="true", description="Für alle", use_gpu="true")
    assert answer.status_code == 200
    model = answer.json()
    assert (model["version"], model["model_available"], model["use_gpu"]) == (1, True, True)
    (stored,) = private_api.files()
    assert stored.startswith(f"models/{model['archive']['sha256']}-")
    assert http.get("/api/models/scan").json() == model
    assert register(http, human_readable_id="b").is_success
    assert [model["human_readable_id"] for model in http.get("/api/models/").json()] == ["b", "scan"]
    assert http.get("/api/models/", params={"limit": 1, "after": "b"}).json() == [model]
    assert error_of(http.get("/api/models/nobody")) == (550, "ModelNotFound")


def test_model_available_and_the_zip_must_agree(private_api: RunningApi, http: httpx.Client) -> None:
    without, unannounced = register(http, model_available="true"), register(http, make_zip())
    assert error_of(without) == error_of(unannounced) == (422, "InvalidRequest")
    assert "no zip_file" in without.json()["detail"]
    assert "model_available is not true" in unannounced.json()["detail"]
    assert private_api.files() == []
    assert http.get("/api/models/").json() == []


def test_a_form_without_a_file_registers_a_model_without_a_zip(private_api: RunningApi, http: httpx.Client) -> None:
    query = {"human_readable_id": "scan", "container_tag": "scan:1"}
    # As a browser sends a form whose file nobody chose.
    answer = http.post("/api/models/", params=query, files={"zip_file": ("", b"", "application/octet-stream")})
    assert (answer.status_code, answer.json()["model_available"]) == (200, False)
    assert private_api.files() == []


def test_a_model_zip_is_checked_to_its_last_byte(private_api: RunningApi, http: httpx.Client) -> None:
    wrong_crc = build(Part(local={"crc": 7}, central={"crc": 7}))
    answer = register(http, wrong_crc, model_available="true")
    assert error_of(answer) == (422, "InvalidArchive")
    assert "CRC" in answer.json()["detail"]
    for case in LYING:
        assert error_of(register(http, case.data, model_available="true")) == (422, "InvalidArchive"), case.sentence
    assert private_api.files() == []
    assert http.get("/api/models/").json() == []


def test_an_id_that_is_taken_is_refused_and_the_model_stays_as_it_was(
    private_api: RunningApi, http: httpx.Client
) -> None:
    first = register(http).json()
    again = register(http, make_zip(), container_tag="scan:2", model_available="true")
    assert error_of(again) == (409, "ModelExists")
    assert "replace=true" in again.json()["detail"]
    assert http.get("/api/models/scan").json() == first
    assert private_api.files() == []


def test_a_queued_task_keeps_the_version_it_was_submitted_under(private_api: RunningApi, http: httpx.Client) -> None:
    old_zip, new_zip = make_zip({"w": b"old"}), make_zip({"w": b"new"})
    register(http, old_zip, model_available="true")
    uids = [http.post("/api/tasks/?human_readable_id=scan", content=make_zip(), headers=ZIP).json()]
    answer = register(http, new_zip, model_available="true", replace="true", container_tag="scan:2")
    assert (answer.status_code, answer.json()["version"]) == (200, 2)
    uids.append(http.post("/api/tasks/?human_readable_id=scan", content=make_zip(), headers=ZIP).json())
    with private_api.consumer() as consumer:
        for uid, version, tag, archive in zip(uids, (1, 2), ("scan:1", "scan:2"), (old_zip, new_zip), strict=True):
            held = consumer.claim(ClaimRequest(consumer="ada", uid=uid))
            assert held is not None
            assert (held.model_version, held.container_tag) == (version, tag)
            target = private_api.data_dir / f"fetched-{version}"
            consumer.fetch_model(held.uid, held.fence, target)
            assert target.read_bytes() == archive
    assert http.get("/api/models/scan").json()["version"] == 2


def test_versions_with_the_same_zip_share_its_file(private_api: RunningApi, http: httpx.Client) -> None:
    for _ in range(2):
        assert register(http, make_zip(), model_available="true", replace="true").is_success
    assert len(private_api.files()) == 1


def test_programs_without_a_container_are_refused_where_they_cannot_run(http: httpx.Client) -> None:
    answer = register(http, make_zip(), container_tag="process:run.py", model_available="true")
    assert error_of(answer) == (422, "InvalidRequest")
    assert "standalone" in answer.json()["detail"]


def test_an_image_that_is_not_allowed_cannot_be_registered(sqlite_url: str, tmp_path: Path) -> None:
    with run_private_api(sqlite_url, tmp_path / "data", allowed_images=("lab/*",)) as api, api.client() as http:
        query = {"human_readable_id": "seg", "container_tag": "evil/seg:1"}
        refused = http.post("/api/models/", params=query)
        assert refused.status_code == 403
        assert "the image evil/seg:1 may not be registered here: the operator allows lab/*" in refused.json()["detail"]
        assert http.post("/api/models/", params=query | {"container_tag": "lab/seg:1"}).status_code == 200
