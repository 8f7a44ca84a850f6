"""What the HTTP door tells about itself."""

import re
from collections.abc import Iterator

import httpx
import pytest

from contract.errors import error_classes
from tests.integration.public_door import serve_door


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with serve_door("http://127.0.0.1:1") as url, httpx.Client(base_url=url, trust_env=False) as client:
        yield client


ROUTES = {
    ("post", "/api/models/"): {200, 401, 403, 409, 413, 422, 500, 503, 507},
    ("get", "/api/models/"): {200, 401, 403, 422, 500, 503},
    ("get", "/api/models/{human_readable_id}"): {200, 401, 403, 422, 500, 503, 550},
    ("post", "/api/models/{human_readable_id}/deployment"): {200, 401, 403, 409, 422, 500, 503, 550},
    ("get", "/api/models/{human_readable_id}/deployment"): {200, 401, 403, 404, 422, 500, 503},
    ("delete", "/api/models/{human_readable_id}/deployment"): {204, 401, 403, 422, 500, 503, 550},
    ("get", "/api/deployments/"): {200, 401, 403, 422, 500, 503},
    ("post", "/api/tasks/"): {200, 401, 403, 409, 413, 422, 500, 503, 507, 550},
    ("get", "/api/tasks/"): {200, 401, 403, 422, 500, 503},
    ("get", "/api/tasks/{uid}"): {200, 401, 403, 422, 500, 503, 551, 552, 553, 554},
    ("head", "/api/tasks/{uid}"): {200, 401, 403, 422, 500, 503, 551, 552, 553, 554},
    ("get", "/api/tasks/{uid}/status"): {200, 401, 403, 404, 422, 500, 503},
    ("get", "/api/tasks/{uid}/logs"): {200, 401, 403, 422, 500, 503, 554},
    ("get", "/api/tasks/{uid}/output"): {200, 206, 304, 401, 403, 416, 422, 500, 503, 551, 552, 553, 554},
    ("head", "/api/tasks/{uid}/output"): {200, 206, 304, 401, 403, 416, 422, 500, 503, 551, 552, 553, 554},
    ("post", "/api/tasks/{uid}/cancel"): {200, 401, 403, 422, 500, 503, 554},
    ("delete", "/api/tasks/{uid}"): {204, 401, 403, 422, 500, 503, 554},
    ("get", "/healthz"): {200},
    ("get", "/readyz"): {200, 503},
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
                    assert answer["content"]["application/json"]["example"]["error"] in names


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


def test_openapi_names_the_parameters_of_both_uses_of_a_submission(http: httpx.Client) -> None:
    call = http.get("/openapi.json").json()["paths"]["/api/tasks/"]["post"]
    names = [parameter["name"] for parameter in call["parameters"]]
    assert sorted(names) == sorted(set(names))
    assert {"human_readable_id", "model_human_readable_id", "container_tag", "idempotency-key"} <= set(names)
    assert set(call["requestBody"]["content"]) == {"multipart/form-data", "application/zip"}
    assert "container_tag" in call["description"]


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
        assert link.startswith("/docs/")
        assert http.get(link).status_code == 200
    assert "/openapi.json" in page.text
