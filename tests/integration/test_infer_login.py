"""`infer login` and `infer logout`, at a terminal and in scripts, on a real server."""

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from inference_client.cli.exit_codes import ExitCode
from tests.integration.infer_harness import Server, User, serve
from tests.terminal import Answer

WRONG_KEY = f"is_{'0' * 16}_{'0' * 64}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(tmp_path / "home")


def hidden(key: str) -> Answer:
    return Answer("Key (Enter if the server wants none)", key, hidden=True)


def stored(user: User) -> dict[str, str]:
    assert user.config.stat().st_mode & 0o777 == 0o600
    values: dict[str, str] = tomllib.loads(user.config.read_text())
    return values


def test_after_a_login_no_command_needs_a_server_or_a_key(server: Server, user: User) -> None:
    shown = user.types(
        "login", answers=[Answer("Server [http://127.0.0.1:8000]", server.closed_url), hidden(server.key)]
    )
    assert shown.code == 0, shown.text
    assert f"logged in to {server.closed_url}\n" in shown.text
    assert server.key not in shown.raw
    assert stored(user) == {"server": server.closed_url, "key": server.key}
    assert user.pipes("list").returncode == 0


def test_the_next_login_offers_the_stored_server(server: Server, user: User) -> None:
    user.types("--server", server.closed_url, "login", answers=[hidden(server.key)])
    shown = user.types("login", answers=[Answer(f"Server [{server.closed_url}]", ""), hidden(server.key)])
    assert shown.code == 0, shown.text


def test_a_key_that_the_server_refuses_is_not_stored(server: Server, user: User) -> None:
    shown = user.types("--server", server.closed_url, "login", answers=[hidden(WRONG_KEY)])
    assert shown.code == ExitCode.REFUSED
    assert "this key is not known here" in shown.text
    assert not user.config.exists()


def test_a_server_that_wants_a_key_is_not_stored_without_one(server: Server, user: User) -> None:
    shown = user.types("--server", server.closed_url, "login", answers=[hidden("")])
    assert shown.code == ExitCode.REFUSED
    assert "the server wants a key for this" in shown.text
    assert not user.config.exists()


def test_an_open_server_is_stored_without_a_key(server: Server, user: User) -> None:
    shown = user.types("login", answers=[Answer("Server", f"{server.url}/"), hidden("")])
    assert shown.code == 0, shown.text
    assert stored(user) == {"server": server.url}
    assert user.pipes("models", "list").returncode == 0


def test_a_password_in_the_servers_url_is_stored_and_not_shown(server: Server, user: User) -> None:
    """It is for a proxy in front of the server."""
    url = server.closed_url.replace("http://", "http://ada:secret@")
    ended = user.pipes("--server", url, "login", "--key-stdin", stdin=server.key)
    assert ended.returncode == 0, ended.stderr
    assert "secret" not in ended.stdout + ended.stderr
    assert stored(user)["server"] == url


def test_a_script_gives_the_key_on_stdin(server: Server, user: User) -> None:
    ended = user.pipes("--server", server.closed_url, "login", "--key-stdin", "--json", stdin=f"{server.key}\n")
    assert json.loads(ended.stdout) == {"server": server.closed_url, "has_key": True, "path": str(user.config)}
    assert stored(user)["key"] == server.key


def test_a_script_without_a_key_is_told_how_to_give_it(server: Server, user: User) -> None:
    ended = user.pipes("--server", server.closed_url, "login")
    assert (ended.returncode, "infer login --key-stdin" in ended.stderr) == (ExitCode.USAGE, True)
    ended = user.pipes("--server", server.closed_url, "login", "--key-stdin")
    assert (ended.returncode, ended.stderr) == (ExitCode.USAGE, "infer: there is no key on stdin\n")


def test_a_login_keeps_comments_but_not_the_grpc_door_of_another_server(server: Server, user: User) -> None:
    user.config.parent.mkdir(parents=True)
    user.config.write_text('# of the ward\nserver = "https://old"\ngrpc = "https://door"\n')
    ended = user.pipes("--server", server.closed_url, "login", "--key-stdin", stdin=server.key)
    assert ended.returncode == 0, ended.stderr
    assert user.config.read_text() == f'# of the ward\nserver = "{server.closed_url}"\nkey = "{server.key}"\n'


def test_a_variable_that_wins_over_the_stored_key_is_named(server: Server, user: User) -> None:
    ended = user.pipes(
        "--server", server.closed_url, "login", "--key-stdin", stdin=server.key, INFERENCE_SERVER_KEY=WRONG_KEY
    )
    assert ended.returncode == 0
    assert "warning: INFERENCE_SERVER_KEY is set and wins over what was stored; unset it\n" in ended.stderr


def test_a_logout_removes_the_key_and_keeps_the_server(server: Server, user: User) -> None:
    user.pipes("--server", server.closed_url, "login", "--key-stdin", stdin=server.key)
    assert user.pipes("logout").stderr == f"the key was removed from {user.config}\n"
    assert stored(user) == {"server": server.closed_url}
    assert user.pipes("logout").stderr == f"there is no key in {user.config}\n"
    assert user.pipes("list").returncode == ExitCode.REFUSED
