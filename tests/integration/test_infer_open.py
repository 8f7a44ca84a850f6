"""`infer open`: the page of a task in a browser, and without one its address."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from inference_client.cli.exit_codes import ExitCode
from tests.integration.infer_harness import Server, User, serve
from tests.unit.client_peer import UID, Answer, running_peer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def user(server: Server, tmp_path: Path) -> User:
    return User(tmp_path / "home", INFERENCE_SERVER_URL=server.url)


@pytest.fixture
def browser(tmp_path: Path) -> Path:
    """A browser that writes down what it shows."""
    program = tmp_path / "browser"
    program.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/shown\n')
    program.chmod(0o755)
    return program


def test_the_page_is_opened_and_its_address_printed(user: User, server: Server, browser: Path) -> None:
    uid = user.submits("echo")
    ended = user.pipes("open", "@last", BROWSER=f"{browser} %s")
    url = f"{server.url}/api/tasks/{uid}/status"
    assert (ended.returncode, ended.stdout, ended.stderr) == (ExitCode.OK, f"{url}\n", "")
    assert (browser.parent / "shown").read_text() == f"{url}\n"


def test_without_a_browser_the_address_is_printed(user: User, server: Server) -> None:
    uid = user.submits("echo")
    ended = user.pipes("open", uid)
    assert (ended.returncode, ended.stdout) == (ExitCode.OK, f"{server.url}/api/tasks/{uid}/status\n")
    assert ended.stderr == "no browser can be opened here: open the address yourself\n"
    told = json.loads(user.pipes("open", uid, "--json").stdout)
    assert told == {"uid": uid, "url": f"{server.url}/api/tasks/{uid}/status", "opened": False}


def test_where_a_key_is_needed_the_docs_ask_for_it(user: User, server: Server) -> None:
    uid = user.submits("echo")
    ended = user.pipes("--key", server.key, "open", uid)
    assert ended.stdout == f"{server.url}/docs#/tasks/show_task\n"
    assert server.key not in ended.stdout


@pytest.mark.parametrize("page", [Answer(200, b"<html>"), Answer(302, headers={"Location": "/login"}), Answer(401)])
def test_a_server_with_a_dashboard_shows_its_page(user: User, page: Answer) -> None:
    with running_peer() as peer:
        peer.plan("GET", f"/tasks/{UID}", page)
        assert user.pipes("--server", peer.url, "open", UID).stdout == f"{peer.url}/tasks/{UID}\n"


def test_a_task_that_is_not_there_has_no_page(user: User) -> None:
    ended = user.pipes("open", "0" * 64)
    assert (ended.returncode, ended.stdout) == (ExitCode.NOT_FOUND, "")
