"""What both APIs answer to calls that are malformed, and to calls without a token, is what their OpenAPI says."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from contract.errors import InvalidRequest
from tests.integration.public_door import PLAIN, serve_door
from tests.running_api import RunningApi

UNPARSED = {"string", "null"}
"""Types that any text is of."""
JSON = "application/json"


def fill(path: str, malformed: Collection[str] = ()) -> str:
    """The path with something in the place of each parameter, which fits unless it is to be malformed."""
    fitting = {"key_id": "0" * 16}
    return re.sub(r"\{(\w+)\}", lambda found: "x" if found[1] in malformed else fitting.get(found[1], "0" * 64), path)


@dataclass(frozen=True)
class Operation:
    """One call as an OpenAPI has it."""

    method: str
    path: str
    described: dict[str, Any]
    schemas: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.described["operationId"])

    def malform(self) -> dict[str, Any] | None:
        """A call that every value is wrong in which can be; None if no value can."""
        wrong = [each for each in self.described.get("parameters", []) if not self._takes_text(each["schema"])]
        required = [each for each in self.described.get("parameters", []) if each["in"] == "query" and each["required"]]
        takes_json = JSON in self.described.get("requestBody", {}).get("content", {})
        if not wrong and not required and not takes_json:
            return None
        in_path = {each["name"] for each in wrong if each["in"] == "path"}
        return {
            "method": self.method,
            "url": fill(self.path, in_path),
            "params": {each["name"]: "x" for each in wrong if each["in"] == "query"},
            "headers": {each["name"]: "x" for each in wrong if each["in"] == "header"} | ({"Content-Type": JSON}),
            "content": b"{" if takes_json else None,
        }

    def errors(self, status: int) -> set[str]:
        """The names of the errors that it may answer with this status, each of which has the schema of all."""
        if not (answer := self.described["responses"].get(str(status))):
            return set()
        content = answer["content"][JSON]
        assert content["schema"] == {"$ref": "#/components/schemas/ErrorBody"}, self.name
        return {example["value"]["error"] for example in content["examples"].values()}

    def _takes_text(self, schema: dict[str, Any]) -> bool:
        schema = self.schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
        if "enum" in schema or "format" in schema:
            return False
        if schema.get("type") == "array":
            return self._takes_text(schema["items"])
        variants = schema.get("anyOf", [schema])
        if variants != [schema]:
            return any(self._takes_text(each) for each in variants if each.get("type") != "null")
        return schema.get("type") in UNPARSED


def read_operations(http: httpx.Client) -> list[Operation]:
    document = http.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    assert "HTTPValidationError" not in schemas
    calls = [(path, method, call) for path, calls in document["paths"].items() for method, call in calls.items()]
    return [Operation(method, path, call, schemas) for path, method, call in calls]


@pytest.fixture(params=["private", "public"])
def http(api: RunningApi, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    if request.param == "private":
        with api.client() as client:
            yield client
        return
    with serve_door(api.url, token=api.token) as url, httpx.Client(base_url=url, **PLAIN) as client:
        yield client


def test_a_malformed_call_is_answered_as_the_document_says(http: httpx.Client) -> None:
    malformed = [(operation, call) for operation in read_operations(http) if (call := operation.malform())]
    assert len(malformed) >= 15
    for operation, call in malformed:
        answer = http.request(**call)
        assert answer.status_code == InvalidRequest.http_status, (operation.name, answer.text)
        assert InvalidRequest.__name__ in operation.errors(answer.status_code), operation.name
        if operation.method != "head":
            assert answer.json()["error"] == InvalidRequest.__name__, operation.name


def test_what_a_call_of_nothing_is_answered_is_in_the_document(http: httpx.Client) -> None:
    for operation in read_operations(http):
        call = operation.malform()
        if call is not None or operation.name == "stream_events":
            continue
        answer = http.request(operation.method, fill(operation.path))
        assert str(answer.status_code) in operation.described["responses"], (operation.name, answer.text)
        if answer.is_error and operation.method != "head":
            assert answer.json()["error"] in operation.errors(answer.status_code), (operation.name, answer.text)


def test_every_operation_may_fail_as_the_document_says(http: httpx.Client) -> None:
    for operation in read_operations(http):
        if operation.path.startswith(("/api/", "/internal/")):
            assert "InferenceError" in operation.errors(500), operation.name
