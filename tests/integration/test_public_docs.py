"""What the HTTP door tells about itself."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter

from contract.errors import error_classes
from contract.model_versions import ModelVersionView
from contract.schemas import ModelView, TaskView
from contract.statuses import Reason, Status, WaitsFor
from kit.http_docs import FILES
from private_api.tasks.read import poll_error
from tests.integration.public_door import serve_door
from tests.waiting import PATIENCE_S


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with (
        serve_door("http://127.0.0.1:1") as url,
        httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE_S) as client,
    ):
        yield client


ROUTES = {
    ("post", "/api/models/"): {200, 401, 403, 408, 409, 413, 422, 429, 500, 503, 507},
    ("get", "/api/models/"): {200, 401, 403, 422, 429, 500, 503},
    ("get", "/api/models/{human_readable_id}"): {200, 401, 403, 422, 429, 500, 503, 550},
    ("patch", "/api/models/{human_readable_id}"): {200, 401, 403, 409, 413, 422, 429, 500, 503, 550},
    ("delete", "/api/models/{human_readable_id}"): {204, 401, 403, 409, 422, 429, 500, 503, 550},
    ("get", "/api/models/{human_readable_id}/versions"): {200, 401, 403, 422, 429, 500, 503, 550},
    ("patch", "/api/models/{human_readable_id}/versions/{version}"): {200, 401, 403, 409, 413, 422, 429, 500, 503, 550},
    ("delete", "/api/models/{human_readable_id}/versions/{version}"): {204, 401, 403, 409, 422, 429, 500, 503, 550},
    ("post", "/api/models/{human_readable_id}/deployment"): {200, 401, 403, 409, 413, 422, 429, 500, 503, 550},
    ("get", "/api/models/{human_readable_id}/deployment"): {200, 401, 403, 404, 422, 429, 500, 503},
    ("delete", "/api/models/{human_readable_id}/deployment"): {204, 401, 403, 422, 429, 500, 503, 550},
    ("get", "/api/deployments/"): {200, 401, 403, 422, 429, 500, 503},
    ("post", "/api/tasks/"): {200, 401, 403, 408, 409, 413, 422, 429, 500, 503, 507, 550},
    ("get", "/api/tasks/"): {200, 401, 403, 422, 429, 500, 503},
    ("get", "/api/tasks/{uid}"): {200, 206, 304, 401, 403, 416, 422, 429, 500, 503, 551, 552, 553, 554},
    ("head", "/api/tasks/{uid}"): {200, 206, 304, 401, 403, 416, 422, 429, 500, 503, 551, 552, 553, 554},
    ("get", "/api/tasks/{uid}/status"): {200, 401, 403, 404, 422, 429, 500, 503},
    ("get", "/api/tasks/{uid}/logs"): {200, 401, 403, 422, 429, 500, 503, 554},
    ("get", "/api/tasks/{uid}/events"): {200, 401, 403, 422, 429, 500, 503, 554},
    ("get", "/api/tasks/{uid}/attempts"): {200, 401, 403, 422, 429, 500, 503, 554},
    ("get", "/api/tasks/{uid}/output"): {200, 206, 304, 401, 403, 416, 422, 429, 500, 503, 551, 552, 553, 554},
    ("head", "/api/tasks/{uid}/output"): {200, 206, 304, 401, 403, 416, 422, 429, 500, 503, 551, 552, 553, 554},
    ("get", "/api/tasks/{uid}/output/files"): {200, 401, 403, 422, 429, 500, 503, 551, 552, 553, 554},
    ("get", "/api/tasks/{uid}/input/files"): {200, 401, 403, 410, 422, 429, 500, 503, 554},
    **{
        (method, "/api/tasks/{uid}/output/files/{path}"): {
            *(200, 206, 304, 416),
            *(401, 403, 404, 422, 429, 500, 503, 551, 552, 553, 554),
        }
        for method in ("get", "head")
    },
    **{
        (method, "/api/tasks/{uid}/input/files/{path}"): {
            200,
            206,
            304,
            416,
            401,
            403,
            404,
            410,
            422,
            429,
            500,
            503,
            554,
        }
        for method in ("get", "head")
    },
    ("post", "/api/tasks/{uid}/rerun"): {200, 401, 403, 409, 410, 422, 429, 500, 503, 507, 550, 554},
    ("post", "/api/tasks/{uid}/cancel"): {200, 401, 403, 422, 429, 500, 503, 554},
    ("delete", "/api/tasks/{uid}"): {204, 401, 403, 422, 429, 500, 503, 554},
    ("get", "/api/queue"): {200, 401, 403, 422, 429, 500, 503},
    ("get", "/api/consumers/"): {200, 401, 403, 422, 429, 500, 503},
    ("get", "/api/events"): {200, 401, 403, 422, 429, 500, 503},
    ("get", "/api/me"): {200, 401, 403, 422, 429, 500, 503},
    ("get", "/api/quota"): {200, 401, 403, 422, 429, 500, 503},
    ("get", "/api/keys/"): {200, 401, 403, 422, 429, 500, 503},
    ("post", "/api/keys/"): {200, 401, 403, 413, 422, 429, 500, 503},
    ("post", "/api/keys/{key_id}/rotate"): {200, 401, 403, 404, 413, 422, 429, 500, 503},
    ("delete", "/api/keys/{key_id}"): {204, 401, 403, 404, 422, 429, 500, 503},
    ("post", "/api/consumers/{name}/drain"): {200, 401, 403, 404, 422, 429, 500, 503},
    ("post", "/api/consumers/{name}/resume"): {200, 401, 403, 404, 422, 429, 500, 503},
    ("get", "/healthz"): {200},
    ("get", "/readyz"): {200, 503},
}

OPERATIONS = {
    ("get", "/healthz"): "healthz",
    ("get", "/readyz"): "readyz",
    ("post", "/api/models/"): "register_model",
    ("get", "/api/models/"): "list_models",
    ("get", "/api/models/{human_readable_id}"): "show_model",
    ("patch", "/api/models/{human_readable_id}"): "change_model",
    ("delete", "/api/models/{human_readable_id}"): "delete_model",
    ("get", "/api/models/{human_readable_id}/versions"): "list_versions",
    ("patch", "/api/models/{human_readable_id}/versions/{version}"): "change_version",
    ("delete", "/api/models/{human_readable_id}/versions/{version}"): "delete_version",
    ("post", "/api/models/{human_readable_id}/deployment"): "deploy",
    ("get", "/api/models/{human_readable_id}/deployment"): "show_deployment",
    ("delete", "/api/models/{human_readable_id}/deployment"): "undeploy",
    ("get", "/api/deployments/"): "list_deployments",
    ("post", "/api/tasks/"): "submit_task",
    ("get", "/api/tasks/"): "list_tasks",
    ("get", "/api/tasks/{uid}"): "poll_task",
    ("head", "/api/tasks/{uid}"): "probe_task",
    ("get", "/api/tasks/{uid}/status"): "show_task",
    ("get", "/api/tasks/{uid}/logs"): "show_log",
    ("get", "/api/tasks/{uid}/output"): "fetch_output",
    ("head", "/api/tasks/{uid}/output"): "probe_output",
    ("get", "/api/tasks/{uid}/events"): "list_events",
    ("get", "/api/tasks/{uid}/attempts"): "list_attempts",
    ("get", "/api/tasks/{uid}/output/files"): "list_output_files",
    ("get", "/api/tasks/{uid}/output/files/{path}"): "fetch_output_file",
    ("head", "/api/tasks/{uid}/output/files/{path}"): "probe_output_file",
    ("get", "/api/tasks/{uid}/input/files"): "list_input_files",
    ("get", "/api/tasks/{uid}/input/files/{path}"): "fetch_input_file",
    ("head", "/api/tasks/{uid}/input/files/{path}"): "probe_input_file",
    ("post", "/api/tasks/{uid}/rerun"): "rerun_task",
    ("post", "/api/tasks/{uid}/cancel"): "cancel_task",
    ("delete", "/api/tasks/{uid}"): "delete_task",
    ("get", "/api/queue"): "show_queue",
    ("get", "/api/consumers/"): "list_consumers",
    ("get", "/api/events"): "stream_events",
    ("get", "/api/me"): "show_me",
    ("get", "/api/quota"): "show_quota",
    ("get", "/api/keys/"): "list_keys",
    ("post", "/api/keys/"): "create_key",
    ("post", "/api/keys/{key_id}/rotate"): "rotate_key",
    ("delete", "/api/keys/{key_id}"): "revoke_key",
    ("post", "/api/consumers/{name}/drain"): "drain_consumer",
    ("post", "/api/consumers/{name}/resume"): "resume_consumer",
}


def test_openapi_lists_every_call_with_its_answers(http: httpx.Client) -> None:
    schema = http.get("/openapi.json").json()
    documented = {
        (method, path): {int(code) for code in call["responses"]}
        for path, calls in schema["paths"].items()
        for method, call in calls.items()
    }
    assert documented == ROUTES
    names = {cls.__name__ for cls in error_classes()}
    for calls in schema["paths"].values():
        for call in calls.values():
            for code, answer in call["responses"].items():
                if int(code) >= 400 and code != "416":
                    examples = answer["content"]["application/json"]["examples"]
                    assert {example["value"]["error"] for example in examples.values()} == set(examples) <= names


def test_openapi_says_how_a_key_is_sent(http: httpx.Client) -> None:
    schema = http.get("/openapi.json").json()
    schemes = {
        name: (scheme["type"], scheme.get("name") or scheme.get("scheme"))
        for name, scheme in schema["components"]["securitySchemes"].items()
    }
    assert schemes == {"key": ("apiKey", "X-API-Key"), "bearer": ("http", "bearer")}
    for path, calls in schema["paths"].items():
        for call in calls.values():
            assert call.get("security", []) == ([{"key": []}, {"bearer": []}] if path.startswith("/api/") else [])


def test_openapi_describes_a_submission_alone_where_tasks_are_posted(http: httpx.Client) -> None:
    call = http.get("/openapi.json").json()["paths"]["/api/tasks/"]["post"]
    required = {parameter["name"]: parameter["required"] for parameter in call["parameters"]}
    assert required == {"human_readable_id": True, "priority": False, "label": False, "idempotency-key": False}
    assert set(call["requestBody"]["content"]) == {
        "multipart/form-data",
        "application/zip",
        "application/octet-stream",
    }
    assert call["responses"]["200"]["content"]["application/json"]["schema"]["type"] == "string"


def test_operations_have_ids_that_stay(http: httpx.Client) -> None:
    schema = http.get("/openapi.json").json()
    calls = [(path, method, call) for path, calls in schema["paths"].items() for method, call in calls.items()]
    assert {(method, path): call["operationId"] for path, method, call in calls} == OPERATIONS
    described = {tag["name"] for tag in schema["tags"] if tag["description"]}
    assert {tag for _, _, call in calls for tag in call["tags"]} == described


def test_examples_are_answers(http: httpx.Client) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    shown = {
        call["operationId"]: call["responses"]["200"]["content"]["application/json"]["example"]
        for calls in paths.values()
        for call in calls.values()
        if "example" in call["responses"].get("200", {}).get("content", {}).get("application/json", {})
    }
    kinds: dict[str, Any] = {
        "register_model": ModelView,
        "list_models": list[ModelView],
        "show_model": ModelView,
        "change_model": ModelView,
        "list_versions": list[ModelVersionView],
        "change_version": ModelVersionView,
        "list_tasks": list[TaskView],
        "show_task": TaskView,
        "cancel_task": TaskView,
    }
    assert shown.keys() == kinds.keys()
    for name, kind in kinds.items():
        answer = TypeAdapter(kind)
        assert answer.dump_python(answer.validate_python(shown[name]), mode="json", exclude_none=True) == shown[name]


def test_every_error_has_its_schema(http: httpx.Client) -> None:
    schema = http.get("/openapi.json").json()
    body = schema["components"]["schemas"]["ErrorBody"]
    assert body["required"] == ["error", "detail"]
    view = TaskView(
        uid="0" * 64,
        human_readable_id="echo",
        model_version=1,
        status=Status.FAILED,
        reason=Reason.EXIT_CODE,
        exit_code=1,
        position=0,
        eta=1.0,
        attempt=1,
        waits_for=WaitsFor.FREE_CONSUMER,
        wait_detail="all are busy",
        log_tail="bad input",
        created_at=datetime.now(UTC),
    )
    assert set(poll_error(view).to_body()) < set(body["properties"])
    for calls in schema["paths"].values():
        for call in calls.values():
            for code, answer in call["responses"].items():
                if int(code) >= 400 and code != "416":
                    assert answer["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/ErrorBody"}


def test_openapi_has_the_schema_of_a_description(http: httpx.Client) -> None:
    schema = http.get("/openapi.json").json()
    body = schema["paths"]["/api/models/{human_readable_id}/deployment"]["post"]["requestBody"]
    reference = body["content"]["application/json"]["schema"]["$ref"]
    serving = schema["components"]["schemas"][reference.rpartition("/")[2]]
    assert {"port", "protocol", "replicas_min", "restricted_keys"} <= set(serving["properties"])


def test_the_docs_load_without_any_other_host(http: httpx.Client) -> None:
    page = http.get("/", follow_redirects=True)
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert page.url.path == "/docs"
    assert len(links) >= 3
    for link in links:
        assert link.startswith("/docs/") or link == "/openapi.json"
        assert http.get(link).status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self';" in policy
    assert 'data-openapi="/openapi.json"' in page.text


def test_the_files_of_swagger_ui_are_those_that_were_published() -> None:
    folder = FILES / "swagger-ui"
    sums = dict(reversed(line.split("  ")) for line in (folder / "SHA256SUMS").read_text().splitlines())
    found = {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.name != "SHA256SUMS"}
    assert found == sums
