"""`/help`: the site as the public API serves it, and what it says where the site was not built."""

from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from kit.http_server import serve_in_thread
from public_api.help import START, install_help
from tests.integration.public_door import PLAIN, serve_door

PAGE = "<!doctype html><title>Help</title>"


def get(app: FastAPI, path: str, prefix: str = "") -> httpx.Response:
    """Ask an app, as a proxy passes it on that serves it under a prefix."""

    async def mounted(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "root_path": prefix}, receive, send)

    with serve_in_thread(mounted, "127.0.0.1", 0) as port:
        return httpx.get(f"http://127.0.0.1:{port}{path}", **PLAIN)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / START).parent.mkdir(parents=True)
    (tmp_path / START).write_text(PAGE)
    return tmp_path


def app_with(site: Path) -> FastAPI:
    app = FastAPI(redirect_slashes=False)
    install_help(app, site)
    return app


@pytest.mark.parametrize("path", ["/help", "/help/"])
def test_help_leads_to_the_first_page(site: Path, path: str) -> None:
    answer = get(app_with(site), path)
    assert (answer.status_code, answer.headers["location"]) == (307, f"/help/{START}")


def test_behind_a_prefix_help_leads_to_a_page_behind_it(site: Path) -> None:
    answer = get(app_with(site), "/inference/help", "/inference")
    assert answer.headers["location"] == f"/inference/help/{START}"
    assert get(app_with(site), answer.headers["location"], "/inference").text == PAGE


def test_pages_come_with_a_policy_that_allows_own_files_only(site: Path) -> None:
    answer = get(app_with(site), f"/help/{START}")
    assert (answer.status_code, answer.text) == (200, PAGE)
    policy = dict(rule.split(" ", 1) for rule in answer.headers["content-security-policy"].split("; "))
    assert (policy["default-src"], policy["script-src"]) == ("'none'", "'self'")
    assert all(
        source in ("'none'", "'self'", "'unsafe-inline'", "data:") for v in policy.values() for source in v.split()
    )
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/help/no-such-page.html", "/help/../app.py", "/help/%2e%2e/app.py"])
def test_what_is_not_in_the_site_is_not_found(site: Path, path: str) -> None:
    assert get(app_with(site), path).status_code == 404


@pytest.mark.parametrize("path", ["/help", "/help/docs/index.html"])
def test_without_a_site_help_says_how_to_build_it(tmp_path: Path, path: str) -> None:
    answer = get(app_with(tmp_path), path)
    assert answer.status_code == 404
    assert "make docs" in answer.text


def test_the_door_needs_no_key_for_help_and_names_an_unknown_page_in_json() -> None:
    with serve_door("http://127.0.0.1:1", require_key=True) as url:
        assert httpx.get(f"{url}/help", **PLAIN).status_code in (307, 404)
        assert "help" in httpx.get(f"{url}/openapi.json", **PLAIN).json()["info"]["description"]
