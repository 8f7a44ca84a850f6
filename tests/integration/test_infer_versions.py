"""`infer models versions` and its neighbours: a model's versions at a terminal and in a script, on a real server."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from inference_client import InferenceClient, ModelRegistration
from inference_client.cli.exit_codes import ExitCode
from inference_client.errors import UnusableInput
from tests.integration.infer_harness import Server, User, serve
from tests.terminal import Answer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """With a model `seg` of three versions."""
    with serve(tmp_path) as server, InferenceClient(server.url) as client:
        for number in range(1, 4):
            client.add_model(ModelRegistration(human_readable_id="seg", container_tag=f"seg:{number}", replace=True))
        yield server


@pytest.fixture
def user(server: Server, tmp_path: Path) -> User:
    return User(tmp_path / "home", INFERENCE_SERVER_URL=server.url)


def says(user: User, *arguments: str) -> str:
    ended = user.pipes(*arguments)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def states(user: User) -> list[str]:
    """The column STATE, newest first."""
    header, *rows = says(user, "models", "versions", "seg").splitlines()
    start, end = header.index("STATE"), header.index("QUEUED")
    return [row[start:end].strip() for row in rows]


def test_a_version_is_pinned_chosen_and_rolled_back(user: User, server: Server) -> None:
    assert states(user) == ["default", "-", "-"]
    assert says(user, "models", "rollback", "seg") == "seg@2\n"
    assert states(user) == ["-", "default", "-"]
    assert says(user, "models", "retire", "seg@1") == ""
    ended = user.pipes("models", "rollback", "seg")
    assert (ended.returncode, ended.stdout) == (ExitCode.USAGE, "")
    assert ended.stderr == "infer: seg has no version before its default one that takes tasks\n"
    assert says(user, "models", "default", "seg@3") == "seg@3\n"

    scan, key = str(user.home / "scan"), {"INFERENCE_SERVER_KEY": server.key}
    uid = user.pipes("submit", "seg@2", scan, **key).stdout.strip()
    assert "seg, version 2" in user.pipes("status", uid, **key).stdout
    assert user.pipes("list", "--model", "seg@2", **key).stdout.count("\n") == 2
    assert user.pipes("list", "--model", "seg@3", **key).stdout.count("\n") == 1
    shown = user.pipes("models", "show", "seg@1").stdout
    assert "1, retired" in shown
    refused = user.pipes("submit", "seg@1", scan)
    assert refused.returncode == ExitCode.REFUSED
    assert "version 1 of 'seg' is retired: it takes no new tasks" in refused.stderr


def test_a_roll_back_says_what_live_calls_still_reach(user: User) -> None:
    says(user, "deploy", "seg@3", "--port", "8001")
    assert states(user)[0] == "default, deployed"
    ended = user.pipes("models", "rollback", "seg")
    assert ended.stdout == "seg@2\n"
    assert ended.stderr == ("live calls still go to version 3, until the model is deployed again: infer deploy seg\n")
    assert "seg, version 3" in says(user, "deployments", "seg")
    says(user, "deploy", "seg", "--port", "8001", "--wait")
    assert states(user)[1] == "default, deployed"
    assert json.loads(says(user, "deploy", "seg@1", "--port", "8001", "--wait", "--json"))["model_version"] == 1


def test_a_retired_model_says_so_until_it_is_restored(user: User) -> None:
    says(user, "models", "retire", "seg")
    assert "3, retired" in says(user, "models", "list")
    refused = user.pipes("submit", "seg", str(user.home / "scan"))
    assert refused.returncode == ExitCode.REFUSED
    assert "the model 'seg' is retired" in refused.stderr
    added = user.pipes("models", "add", "seg:4", "seg", "--replace")
    assert "bring it back with: infer models restore seg" in added.stderr
    says(user, "models", "restore", "seg")
    says(user, "models", "describe", "seg", "Segments the spleen")
    assert "Segments the spleen" in says(user, "models", "show", "seg")
    user.submits("seg")


def test_deleting_asks_at_a_terminal_and_names_what_is_in_the_way(user: User) -> None:
    question = "Delete seg@2 for good?"
    assert "nothing was deleted" in user.types("models", "delete", "seg@2", answers=[Answer(question, "n")]).text
    assert len(states(user)) == 3
    assert user.types("models", "delete", "seg@2", answers=[Answer(question, "y")]).code == 0
    assert user.types("models", "delete", "seg@1", "--yes").code == 0
    assert states(user) == ["default"]
    refused = user.pipes("models", "delete", "seg@3")
    assert refused.returncode == ExitCode.REFUSED
    assert "is the default of 'seg': choose another default first, or delete the whole model" in refused.stderr
    uid = user.submits("seg")
    assert "tasks that have not ended: 1" in user.pipes("models", "delete", "seg").stderr
    says(user, "cancel", uid)
    assert json.loads(says(user, "models", "delete", "seg", "--json")) == {
        "human_readable_id": "seg",
        "version": None,
        "deleted": True,
    }
    assert "seg " not in says(user, "models", "list")
    assert "seg, version 3" in says(user, "status", uid)


def test_what_names_no_version_is_told_apart(user: User) -> None:
    cases: list[tuple[list[str], ExitCode, str]] = [
        (["models", "show", "seg@9"], ExitCode.NOT_FOUND, "infer: the model 'seg' has no version 9\n"),
        (["models", "versions", "nobody"], ExitCode.NOT_FOUND, "list the models with: infer models list\n"),
        (["models", "versions", "segg"], ExitCode.NOT_FOUND, "Did you mean: seg?"),
        (["deploy", "segg@2", "--port", "1"], ExitCode.NOT_FOUND, "Did you mean: seg?"),
        (["models", "default", "seg"], ExitCode.USAGE, "name the version, as in seg@3"),
        (["models", "retire", "seg@new"], ExitCode.USAGE, "a version is a number, as in seg@3"),
    ]
    for arguments, code, words in cases:
        ended = user.pipes(*arguments)
        assert (ended.returncode, words in ended.stderr) == (code, True), ended.stderr


def test_the_python_client_does_the_same(user: User, server: Server) -> None:
    with InferenceClient(server.url, key=server.operator_key) as operator:
        operator.change_model("seg", owner="ada")
    with InferenceClient(server.url, key=server.key) as client:
        assert client.roll_back("seg").version == 2
        client.change_version("seg", 1, retired=True)
        with pytest.raises(UnusableInput):
            client.roll_back("seg")
        client.change_version("seg", 1, retired=False, description="First")
        assert client.roll_back("seg").description == "First"
        assert [view.default for view in client.list_versions("seg")] == [False, False, True]
        client.delete_version("seg", 3)
        again = ModelRegistration(human_readable_id="seg", container_tag="seg:5", replace=True)
        assert client.add_model(again).version == 4


def test_a_model_is_shared_with_certain_owners_and_given_away(server: Server, tmp_path: Path) -> None:
    ada = User(tmp_path / "ada", INFERENCE_SERVER_URL=server.closed_url, INFERENCE_SERVER_KEY=server.key)
    carol = User(tmp_path / "carol", INFERENCE_SERVER_URL=server.closed_url, INFERENCE_SERVER_KEY=server.operator_key)
    refused = ada.pipes("models", "share", "seg")
    assert refused.returncode == ExitCode.REFUSED
    assert "the model 'seg' is nobody's" in refused.stderr
    assert says(carol, "models", "give", "seg", "ada") == "seg belongs to ada\n"
    assert says(ada, "models", "share", "seg", "bob", "eve") == "seg is for its owner, bob, eve\n"
    shown = says(ada, "models", "show", "seg")
    assert [line.split(maxsplit=1)[1] for line in shown.splitlines() if line.startswith(("owner", "for"))] == [
        "ada",
        "its owner, bob, eve",
    ]
    assert json.loads(says(ada, "models", "share", "seg", "--json"))["users"] == []
    nobody = User(tmp_path / "nobody", INFERENCE_SERVER_URL=server.url)
    refused = nobody.pipes("submit", "seg", str(nobody.home / "scan"))
    assert refused.returncode == ExitCode.REFUSED
    assert "the model 'seg' is for certain owners" in refused.stderr
    assert says(ada, "models", "share", "seg", "--everybody") == "seg is for everybody\n"
    assert nobody.pipes("submit", "seg", str(nobody.home / "scan")).returncode == 0
    both = ada.pipes("models", "share", "seg", "bob", "--everybody")
    assert both.returncode == ExitCode.USAGE
