"""How archives come to a consumer."""

from pathlib import Path

import pytest

from contract.claims import ClaimRequest
from job_consumer.engines import EngineUnavailable, RunKey
from job_consumer.transfer import fetch_archive
from tests.running_api import RunningApi
from tests.zips import make_zip


def test_an_input_that_is_not_the_one_of_the_assignment_is_not_run(private_api: RunningApi, tmp_path: Path) -> None:
    with private_api.client() as http, private_api.consumer() as consumer:
        http.post("/api/models/", params={"human_readable_id": "echo", "container_tag": "echo:1"})
        zip_type = {"Content-Type": "application/zip"}
        data = make_zip({"a": b"1"})
        http.post("/api/tasks/", params={"human_readable_id": "echo"}, content=data, headers=zip_type)
        held = consumer.claim(ClaimRequest(consumer="ada"))
        assert held is not None
        key, target = RunKey(held.uid, held.fence), tmp_path / "input.zip"
        fetch_archive(consumer.fetch_input, key, target, held.input.sha256)
        assert target.read_bytes() == data
        with pytest.raises(EngineUnavailable, match="arrived damaged"):
            fetch_archive(consumer.fetch_input, key, target, "0" * 64)
