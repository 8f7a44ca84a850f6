"""JSON bodies are bounded, at every route of both APIs, before any key is asked for; and what is no JSON is told."""

import re
from collections.abc import Iterator

import httpx

from private_api.routes.json_bodies import MAX_JSON_BYTES
from tests.integration.public_door import PLAIN, serve_door
from tests.running_api import RunningApi

MIB = 1024**2
JSON = {"Content-Type": "application/json"}


def json_routes(http: httpx.Client) -> list[tuple[str, str]]:
    """Method and path of what takes JSON, with something in the place of each parameter."""
    found = []
    for path, operations in http.get("/openapi.json").json()["paths"].items():
        for method, operation in operations.items():
            if "application/json" in operation.get("requestBody", {}).get("content", {}):
                assert "413" in operation["responses"], f"{method} {path} does not document 413"
                named = path.replace("{key_id}", "0" * 16)
                found.append((method, re.sub(r"\{[^}]*\}", "1", named)))
    return found


def piecewise(size: int) -> Iterator[bytes]:
    """A body whose length is not told before, so that it shows only as it comes."""
    for _ in range(size // 65536):
        yield b" " * 65536


def test_no_route_of_the_private_api_reads_a_large_body(api: RunningApi) -> None:
    with httpx.Client(base_url=api.url, **PLAIN) as http:
        routes = json_routes(http)
        assert len(routes) >= 15
        for method, path in routes:
            for content in (b" " * (MAX_JSON_BYTES + 1), piecewise(2 * MIB)):
                answer = http.request(method, path, content=content, headers=JSON)
                assert (answer.status_code, answer.json()["error"]) == (413, "TooLarge"), (method, path)
                assert answer.json()["detail"] == "a JSON body may have at most 1 MiB"


def test_what_is_as_large_as_allowed_is_read(api: RunningApi) -> None:
    with httpx.Client(base_url=api.url, **PLAIN) as http:
        body = b'{"port": 9000}'.ljust(MAX_JSON_BYTES)
        headers = {**JSON, "Authorization": f"Bearer {api.token}"}
        for content in (body, iter([body[:9], body[9:]])):
            answer = http.post("/api/models/nobody/deployment", content=content, headers=headers)
            assert (answer.status_code, answer.json()["error"]) == (550, "ModelNotFound")


def test_the_door_passes_the_refusal_on(api: RunningApi) -> None:
    with serve_door(api.url, require_key=True) as url, httpx.Client(base_url=url, **PLAIN) as http:
        routes = json_routes(http)
        assert len(routes) > 3
        for method, path in routes:
            for content in (b" " * (64 * MIB), piecewise(64 * MIB)):
                try:
                    answer = http.request(method, path, content=content, headers=JSON)
                except httpx.WriteError:
                    # The server hung up, since nobody will read the rest.
                    continue
                assert answer.status_code in (401, 413), (method, path, answer.text)


def test_a_body_that_is_no_text_is_an_invalid_request(api: RunningApi) -> None:
    with api.client() as http:
        answer = http.post("/api/models/nobody/deployment", content=b"\x86\xff", headers=JSON)
        assert (answer.status_code, answer.json()["error"]) == (422, "InvalidRequest")


def test_the_methods_of_a_path_are_all_named_to_whoever_asks_for_another(api: RunningApi) -> None:
    with serve_door(api.url) as url:
        for base in (url, api.url):
            answer = httpx.put(f"{base}/api/models/nobody", **PLAIN)
            assert (answer.status_code, answer.headers["Allow"]) == (405, "DELETE, GET, PATCH")
