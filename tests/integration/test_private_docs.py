"""What the private API tells about itself."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.running_api import run_private_api
from tests.waiting import PATIENCE_S

WITHOUT_TOKEN = {"healthz", "readyz", "show_express_routes"}


@pytest.fixture
def calls(sqlite_url: str, tmp_path: Path) -> list[dict[str, Any]]:
    """Every operation of its OpenAPI."""
    with run_private_api(sqlite_url, tmp_path / "data") as api:
        schema = httpx.get(f"{api.url}/openapi.json", verify=False, trust_env=False, timeout=PATIENCE_S).json()  # noqa: S501 - plain HTTP
    return [call for path in schema["paths"].values() for call in path.values()]


def test_every_operation_has_an_id_of_its_own_and_says_where_the_token_is_needed(calls: list[dict[str, Any]]) -> None:
    names = [call["operationId"] for call in calls]
    assert sorted(names) == sorted(set(names))
    assert {"submit_task", "show_task", "claim_task", "claim_replica"} <= set(names)
    for call in calls:
        needed = [] if call["operationId"] in WITHOUT_TOKEN else [{"service_token": []}]
        assert call.get("security", []) == needed, call["operationId"]


def test_every_error_of_the_private_api_has_its_schema(calls: list[dict[str, Any]]) -> None:
    for call in calls:
        for code, answer in call["responses"].items():
            if int(code) >= 400:
                assert answer["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/ErrorBody"}
