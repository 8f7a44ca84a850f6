"""What a page of another site, and a name that is not the server's, are answered."""

import socket
from collections.abc import Iterator

import httpx
import pytest

from kit.settings import SettingsError
from public_api.settings import PublicApiSettings
from tests.integration.public_door import PLAIN, serve_door
from tests.running_api import RunningApi
from tests.zips import make_zip

VIEWER, OTHER = "https://viewer.example.org", "https://evil.example.org"
NAMES = ("segment.example.org", "*.lab.example.org")
REGISTER = {"params": {"human_readable_id": "echo", "container_tag": "echo:1"}}


@pytest.fixture
def http(api: RunningApi) -> Iterator[httpx.Client]:
    with (
        serve_door(api.url, cors_origins=[VIEWER], hosts=NAMES) as url,
        httpx.Client(base_url=url, **PLAIN) as client,
    ):
        yield client


def read_settings(hosts: str) -> PublicApiSettings:
    return PublicApiSettings.load({"SERVICE_TOKEN": "a-service-token-of-the-tests", "ALLOWED_HOSTS": hosts})


def unsafe_routes(http: httpx.Client) -> list[tuple[str, str]]:
    paths = http.get("/openapi.json").json()["paths"]
    return [
        (method, path)
        for path, operations in paths.items()
        for method in operations
        if method in ("post", "put", "patch", "delete")
    ]


def test_no_route_does_what_a_page_of_another_site_asks_for(http: httpx.Client) -> None:
    routes = unsafe_routes(http)
    assert len(routes) > 10
    own = str(http.base_url).rstrip("/")
    for headers in (
        {"Origin": OTHER},
        {"Origin": "null"},
        {"Origin": own.replace("127.0.0.1", "localhost")},
        {"Origin": own.rpartition(":")[0] + ":1"},
        {"Origin": own, "Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site"},
    ):
        for method, path in routes:
            answer = http.request(method, path, headers=headers)
            assert (answer.status_code, answer.json()["error"]) == (403, "PermissionDenied"), (method, path, headers)
            assert "CORS_ORIGINS" in answer.json()["detail"]


def test_its_own_pages_pages_that_are_listed_and_programs_may(http: httpx.Client) -> None:
    own = str(http.base_url).rstrip("/")
    for headers in (
        {},
        {"Origin": own},
        {"Origin": own, "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": VIEWER, "Sec-Fetch-Site": "cross-site"},
        # Behind a proxy that says which name was asked for, and leaves out the port.
        {"Origin": "https://segment.example.org:8443", "Host": "segment.example.org"},
        {"Origin": "https://segment.example.org", "Host": "segment.example.org"},
    ):
        assert http.post("/api/models/", **REGISTER, headers=headers).status_code in (200, 409), headers


def test_a_form_of_another_site_registers_nothing(http: httpx.Client) -> None:
    asked = {"human_readable_id": "evil", "container_tag": "process:run.sh", "model_available": "true"}
    files = {"zip_file": make_zip({"run.sh": b"id"})}
    answer = http.post("/api/models/", params=asked, files=files, headers={"Origin": OTHER})
    assert answer.status_code == 403
    assert http.get("/api/models/").json() == []


def test_a_page_of_another_site_may_lead_its_visitor_here(http: httpx.Client) -> None:
    headers = {"Origin": OTHER, "Sec-Fetch-Site": "cross-site"}
    assert http.get("/api/models/", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "name", ["localhost", "viewer.localhost", "[::1]", "192.0.2.7", "segment.example.org.", "SEGMENT.example.org"]
)
def test_it_answers_by_its_names_and_addresses(http: httpx.Client, name: str) -> None:
    for host in (name, f"{name}:8000"):
        assert http.get("/api/models/", headers={"Host": host}).status_code == 200, host


def test_it_answers_by_its_machines_name_and_by_names_below_one_that_is_given(http: httpx.Client) -> None:
    for name in (socket.gethostname(), "box.lab.example.org", "a.b.lab.example.org"):
        assert http.get("/api/models/", headers={"Host": name}).status_code == 200, name


@pytest.mark.parametrize(
    "name",
    ["evil.example", "lab.example.org", "evillab.example.org", "127.0.0.1.evil.example", "segment.example.org.evil"],
)
def test_by_another_name_nothing_is_read_or_done(http: httpx.Client, name: str) -> None:
    for answer in (
        http.get("/api/models/", headers={"Host": name}),
        http.post("/api/models/", **REGISTER, headers={"Host": name, "Origin": f"http://{name}"}),
    ):
        assert (answer.status_code, answer.json()["error"]) == (403, "PermissionDenied")
        assert f"not called '{name}'" in answer.json()["detail"]
        assert "ALLOWED_HOSTS" in answer.json()["detail"]
    # A probe knows a server by any name.
    assert http.get("/healthz", headers={"Host": name}).status_code == 200


def test_any_name_is_one_of_its_own_where_a_star_stands_for_all(api: RunningApi) -> None:
    with serve_door(api.url, hosts=["*"]) as url, httpx.Client(base_url=url, **PLAIN) as http:
        assert http.get("/api/models/", headers={"Host": "any.example"}).status_code == 200


@pytest.mark.parametrize("hosts", ["https://a.example", "a.example:443", "a..example", "*.", "a/b", "*a.example"])
def test_what_is_no_name_is_refused_at_the_start(hosts: str) -> None:
    with pytest.raises(SettingsError, match=r"^ALLOWED_HOSTS: "):
        read_settings(hosts)


def test_names_are_read_with_spaces_or_commas_between() -> None:
    assert read_settings("A.example, *.b.example").allowed_hosts == ("a.example", "*.b.example")
