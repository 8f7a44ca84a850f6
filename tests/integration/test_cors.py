"""What a browser is told about pages of other origins."""

from collections.abc import Iterator

import httpx
import pytest

from kit.settings import SettingsError
from public_api.relay import ANSWER_HEADERS, REQUEST_HEADERS
from public_api.settings import PublicApiSettings
from tests.integration.public_door import PLAIN, UNKNOWN_UID, serve_door
from tests.running_api import RunningApi
from tests.zips import make_zip

VIEWER, OTHER = "https://viewer.example.org", "https://evil.example.org"
SAFELISTED = {"accept", "cache-control", "content-language", "content-length", "content-type", "last-modified"}
"""What pages may send and read anyway."""
NOT_FOR_PAGES = {"content-security-policy", "x-accel-buffering", "x-content-type-options"}


@pytest.fixture
def http(api: RunningApi) -> Iterator[httpx.Client]:
    with serve_door(api.url, cors_origins=[VIEWER]) as url, httpx.Client(base_url=url, **PLAIN) as client:
        yield client


def ask_before(http: httpx.Client, origin: str, method: str, *headers: str) -> httpx.Response:
    """The request by which a browser asks whether a page may make another."""
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": ", ".join(headers).lower()}
    return http.options("/api/tasks/", headers={"Origin": origin, **asked})


def listed(answer: httpx.Response, header: str) -> set[str]:
    return {name.strip().lower() for name in answer.headers.get(header, "").split(",")}


def test_a_page_of_an_origin_that_is_named_may_do_all_that_clients_do(http: httpx.Client) -> None:
    for method in ("GET", "HEAD", "POST", "PATCH", "DELETE"):
        answer = ask_before(http, VIEWER, method, "Authorization", "Idempotency-Key", "X-API-Key", "Content-Type")
        assert answer.status_code == 200, answer.text
        assert answer.headers["Access-Control-Allow-Origin"] == VIEWER
        assert "Access-Control-Allow-Credentials" not in answer.headers
        assert method in answer.headers["Access-Control-Allow-Methods"]
    passed = {header.decode() for header in REQUEST_HEADERS} | {"authorization", "x-api-key", "x-request-id"}
    assert passed <= listed(answer, "Access-Control-Allow-Headers") | SAFELISTED


def test_it_may_read_what_clients_read_and_errors_too(http: httpx.Client) -> None:
    assert http.post("/api/models/", params={"human_readable_id": "echo", "container_tag": "echo:1"}).is_success
    zip_type = {"Origin": VIEWER, "Content-Type": "application/zip"}
    submitted = http.post("/api/tasks/", params={"human_readable_id": "echo"}, content=make_zip(), headers={**zip_type})
    unknown = http.get(f"/api/tasks/{UNKNOWN_UID}/status", headers={"Origin": VIEWER})
    assert (submitted.status_code, unknown.status_code) == (200, 404)
    for answer in (submitted, unknown, http.get("/nothing", headers={"Origin": VIEWER})):
        assert answer.headers["Access-Control-Allow-Origin"] == VIEWER
        assert "Origin" in answer.headers["Vary"]
    exposed = listed(submitted, "Access-Control-Expose-Headers")
    assert {header.decode() for header in ANSWER_HEADERS} - NOT_FOR_PAGES <= exposed | SAFELISTED
    assert "x-request-id" in exposed


def test_a_page_of_another_origin_may_nothing(http: httpx.Client) -> None:
    for origin in (OTHER, "null", "http://viewer.example.org", f"{VIEWER}.evil.org", f"{VIEWER}:8443"):
        asked = ask_before(http, origin, "POST", "Content-Type")
        assert asked.status_code == 400
        for answer in (asked, http.get("/readyz", headers={"Origin": origin})):
            assert "Access-Control-Allow-Origin" not in answer.headers


def test_without_the_setting_no_page_may_anything(api: RunningApi) -> None:
    with serve_door(api.url) as url, httpx.Client(base_url=url, **PLAIN) as http:
        assert ask_before(http, VIEWER, "GET").status_code == 405
        answer = http.get("/readyz", headers={"Origin": VIEWER})
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def load(origins: str) -> tuple[str, ...]:
    return PublicApiSettings.load(
        {"SERVICE_TOKEN": "a-service-token-of-the-tests", "CORS_ORIGINS": origins}
    ).cors_origins


def test_origins_are_separated_by_spaces_or_commas() -> None:
    assert load("https://Viewer.example.org, http://localhost:5173  http://[::1]:8080,https://viewer.example.org") == (
        VIEWER,
        "http://localhost:5173",
        "http://[::1]:8080",
    )
    assert load("") == load(" , ") == ()


@pytest.mark.parametrize(
    ("origin", "why"),
    [
        ("*", "name each"),
        ("null", "'null' is not an origin, such as"),
        ("viewer.example.org", "is not an origin, such as"),
        ("ftp://viewer.example.org", "is not an origin, such as"),
        ("https://", "is not an origin, such as"),
        ("https://me@viewer.example.org", "is not an origin, such as"),
        ("https://viewer.example.org/", "it ends after the host and the port, as in https://viewer.example.org"),
        ("https://viewer.example.org/app", "it ends after the host and the port"),
        ("https://viewer.example.org?x", "it ends after the host and the port"),
        ("https://viewer.example.org:443", "leave out :443, as browsers do"),
        ("http://viewer.example.org:80", "leave out :80"),
        ("https://viewer.example.org:port", "is not an origin: "),
        ("https://*.example.org", "stars"),
    ],
)
def test_what_is_no_origin_is_refused_at_the_start(origin: str, why: str) -> None:
    with pytest.raises(SettingsError, match=r"^CORS_ORIGINS: ") as refusal:
        load(f"{VIEWER} {origin}")
    assert why in str(refusal.value)
    assert VIEWER + "'" not in str(refusal.value)
