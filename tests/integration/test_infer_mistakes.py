"""What `infer` says about a server that is not there and about mistyped names, and what the shell offers after Tab."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from inference_client.cli.exit_codes import ExitCode
from tests.integration.infer_harness import MODELS, Server, User, serve
from tests.unit.test_client_first_contact import black_hole, closed_port

START = "To start one on this machine: inference-server standalone\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def user(server: Server, tmp_path: Path) -> User:
    return User(tmp_path / "home", INFERENCE_SERVER_URL=server.url)


def complete(user: User, *words: str, **variables: str) -> list[str]:
    """What bash is told to offer for the last of `words`."""
    line = {"_INFER_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    ended = user.pipes(**line, **variables)
    assert ended.stderr == ""
    return ended.stdout.split()


def test_a_server_that_refuses_is_told_with_where_its_address_comes_from(user: User) -> None:
    with closed_port() as url:
        shown = user.types("--server", url, "models", "list")
        assert shown.code == ExitCode.SERVER
        assert shown.text == (
            f"infer: {url} cannot be reached: Connection refused\n"
            f"The address comes from --server. Is it right, and does the server run?\n{START}"
        )
        ended = user.pipes("models", "list", INFERENCE_SERVER_URL=url)
        assert "The address comes from INFERENCE_SERVER_URL." in ended.stderr
        user.config.parent.mkdir(parents=True)
        user.config.write_text(f'server = "{url}"\n')
        ended = user.pipes("models", "list", INFERENCE_SERVER_URL="")
        assert f"The address comes from {user.config}." in ended.stderr


def test_a_server_that_ignores_is_told_the_same_way(user: User) -> None:
    with black_hole() as url:
        shown = user.types("--server", url, "wait", "ab" * 32)
    assert shown.code == ExitCode.SERVER
    assert f"infer: {url} did not answer in time\nThe address comes from --server." in shown.text


def test_a_grpc_door_that_refuses_is_told_with_how_to_name_another_one(user: User) -> None:
    with closed_port() as url:
        ended = user.pipes("--grpc", url, "call", "echo", "Say")
    assert ended.returncode == ExitCode.SERVER
    first, second = ended.stderr.splitlines()
    assert first.startswith(f"infer: UNAVAILABLE: {url.removeprefix('http://')} cannot be reached: ")
    assert second == "Is a gRPC door there? Another address is named with --grpc or INFERENCE_SERVER_GRPC."


def test_a_grpc_door_that_ignores_or_says_nothing_is_told_the_same_way(user: User) -> None:
    with black_hole() as ignoring, socket.create_server(("127.0.0.1", 0)) as silent:
        for url in (ignoring, f"http://127.0.0.1:{silent.getsockname()[1]}"):
            ended = user.pipes("--grpc", url, "call", "echo", "Say")
            assert ended.returncode == ExitCode.SERVER
            first, second = ended.stderr.splitlines()
            assert first == f"infer: UNAVAILABLE: {url.removeprefix('http://')} did not answer in time"
            assert second.startswith("Is a gRPC door there?")


def test_a_name_that_nobody_has_is_told_without_the_numbers_of_the_system(user: User) -> None:
    ended = user.pipes("--server", "http://nowhere.invalid", "models", "list")
    assert ended.returncode == ExitCode.SERVER
    assert ended.stderr.startswith("infer: http://nowhere.invalid cannot be reached: ")
    assert "Errno" not in ended.stderr
    assert START not in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["sumbit", "echo", "scan"], "Did you mean 'submit'?"),
        (["models", "lsit"], "Did you mean 'list'?"),
        (["fetch", "@last", "--ouput", "x"], "--output"),
        (["models", "list", "--server", "x"], "--server stands before the command: infer --server ... COMMAND"),
    ],
)
def test_a_mistyped_command_or_option_names_the_right_one(user: User, arguments: list[str], says: str) -> None:
    shown = user.types(*arguments)
    assert shown.code == ExitCode.USAGE
    assert says in shown.text


@pytest.mark.parametrize(
    ("arguments", "close"),
    [
        (["submit", "segmnt-lungs", "scan"], "segment-lungs, segment-liver"),
        (["models", "show", "Ecko"], "echo"),
        (["deploy", "liver", "--port", "8001"], "segment-liver"),
    ],
)
def test_a_mistyped_model_names_those_that_the_server_has(user: User, arguments: list[str], close: str) -> None:
    arguments = [str(user.home / "scan") if each == "scan" else each for each in arguments]
    ended = user.pipes(*arguments)
    assert ended.returncode == ExitCode.NOT_FOUND
    assert ended.stderr.splitlines()[-2:] == [
        "infer: no model has this id; list the models with: infer models list",
        f"Did you mean: {close}?",
    ]


def test_a_model_that_is_not_deployed_is_no_mistyped_one(user: User) -> None:
    ended = user.pipes("undeploy", "echo")
    assert "Did you mean" not in ended.stderr
    ended = user.pipes("deployments", "echo")
    assert ended.stderr == "infer: the model is not deployed; deploy it with: infer deploy MODEL --port PORT\n"


def test_the_shell_completes_models_deployments_and_uids(user: User) -> None:
    assert sorted(complete(user, "infer", "submit", "")) == sorted(MODELS)
    assert complete(user, "infer", "models", "show", "e") == ["echo"]
    assert complete(user, "infer", "status", "") == []
    uid = user.submits("echo")
    assert complete(user, "infer", "wait", uid[:3]) == [uid]
    assert complete(user, "infer", "wait", "@") == ["@last"]
    assert complete(user, "infer", "undeploy", "") == []
    assert user.pipes("deploy", "echo", "--port", "8001").returncode == 0
    assert complete(user, "infer", "undeploy", "") == ["echo"]
    assert complete(user, "infer", "call", "") == ["echo"]
    serving = user.home / "serving.json"
    serving.write_text('{"port": 8001, "application": "parrot"}')
    assert user.pipes("deploy", "echo", "--serving", str(serving)).returncode == 0
    assert complete(user, "infer", "call", "") == ["parrot"]
    assert user.pipes("undeploy", "echo").returncode == 0


def test_the_shell_completes_the_tasks_of_the_keys_owner(user: User, server: Server, tmp_path: Path) -> None:
    key = {"INFERENCE_SERVER_KEY": server.key}
    uid = User(tmp_path / "elsewhere", INFERENCE_SERVER_URL=server.url, **key).submits("echo")
    assert uid in complete(user, "infer", "logs", "", **key)
    assert complete(user, "infer", "--key", server.key, "logs", uid[:6]) == [uid]


def test_the_shell_offers_nothing_and_shows_nothing_if_the_server_does_not_answer(user: User) -> None:
    for server in (closed_port, black_hole):
        with server() as url:
            assert complete(user, "infer", "--server", url, "submit", "") == []
    # Takes the connection and never says a word.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert complete(user, "infer", "--server", url, "submit", "") == []
    user.config.parent.mkdir(parents=True)
    user.config.write_text("this is no TOML")
    assert complete(user, "infer", "submit", "") == []


def test_the_version_is_that_of_the_installed_distribution(user: User) -> None:
    shown = user.types("--version")
    assert (shown.code, shown.text) == (0, "infer 0.1.0\n")
