"""What `infer` says when a real server refuses: what to do with `infer`, never what to send over HTTP."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from inference_client import InferenceClient, ModelRegistration, cli
from inference_client.cli.exit_codes import ExitCode
from inference_client.cli.hints import speaks_http
from inference_client.pack import select
from tests.integration.public_door import serve_door
from tests.running_api import RunningApi, run_private_api
from tests.waiting import PATIENCE_S

Infer = Callable[..., tuple[int, str, str]]

NO_MODEL = "no model has this id; list the models with: infer models list"
WANTS_KEY = "the server wants a key for this; log in with: infer login (or set INFERENCE_SERVER_KEY)"


@pytest.fixture(scope="module")
def private_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    folder = tmp_path_factory.mktemp("server")
    with run_private_api(f"sqlite:///{folder / 'db'}", folder) as api:
        yield api


@pytest.fixture(scope="module")
def url(private_api: RunningApi) -> Iterator[str]:
    with serve_door(private_api.url) as url:
        yield url


@pytest.fixture(scope="module")
def inputs(url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two files; `input` was submitted to the model `echo` under the key `once`."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "input").write_text("input")
    (folder / "other").write_text("other")
    with InferenceClient(url) as client:
        client.add_model(ModelRegistration(human_readable_id="echo", container_tag="echo:1"))
        client.submit("echo", folder / "input", idempotency_key="once")
    return folder


@pytest.fixture
def infer(
    url: str, inputs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> Infer:
    monkeypatch.setenv("INFERENCE_SERVER_URL", url)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(inputs)

    def call(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = cli.run(arguments)
        out, err = capfd.readouterr()
        return code, out, err

    return call


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["models", "show", "nobody"], ExitCode.NOT_FOUND, NO_MODEL),
        (["submit", "nobody", "input"], ExitCode.NOT_FOUND, NO_MODEL),
        (["deploy", "nobody", "--port", "8001"], ExitCode.NOT_FOUND, NO_MODEL),
        (
            ["models", "add", "echo:1", "echo"],
            ExitCode.REFUSED,
            "a model with this id is registered already; make a new version of it with --replace",
        ),
        (
            ["deployments", "echo"],
            ExitCode.NOT_FOUND,
            "the model is not deployed; deploy it with: infer deploy MODEL --port PORT",
        ),
        (
            ["submit", "echo", "other", "--idempotency-key", "once"],
            ExitCode.REFUSED,
            "this --idempotency-key was used for a submission with other content; choose another one",
        ),
        (["list"], ExitCode.REFUSED, WANTS_KEY),
        (["consumers"], ExitCode.REFUSED, WANTS_KEY),
    ],
)
def test_a_refusal_says_what_to_do_with_infer_and_json_is_the_servers_own(
    infer: Infer, arguments: list[str], code: ExitCode, says: str
) -> None:
    found, out, err = infer(*arguments)
    assert (found, out) == (code, "")
    assert err.splitlines()[-1] == f"infer: {says}"
    found, out, err = infer(*arguments, "--json")
    assert (found, err) == (code, "")
    assert speaks_http(json.loads(out)["detail"])


def test_a_gpu_task_on_a_server_without_a_gpu_says_what_to_start_on_every_surface(url: str, infer: Infer) -> None:
    infer("models", "add", "big:1", "big", "--gpu")
    code, out, err = infer("submit", "big", "input", "--wait", "--timeout", "0")
    uid = out.strip()
    says = "no consumer with a GPU is there. Start one on a host with a GPU: `inference-server gpus"
    assert (code, f"queued, 0 before it: {says}" in err) == (ExitCode.NOT_ENDED, True)
    assert f"it goes on: {says}" in err
    assert says in infer("status", uid)[1]
    assert says in infer("fetch", uid)[2]
    (lane,) = (line for line in infer("queue")[1].splitlines() if line.startswith("gpu"))
    assert says in lane
    poll = httpx.get(f"{url}/api/tasks/{uid}", timeout=PATIENCE_S)
    assert (poll.status_code, poll.json()["waits_for"], "eta" in poll.json()) == (551, "consumer", False)
    assert says in poll.json()["detail"]
    status = httpx.get(f"{url}/api/tasks/{uid}/status", timeout=PATIENCE_S).json()
    assert (status["status"], status["waits_for"], status["eta"]) == ("queued", "consumer", None)


def test_a_refusal_that_serves_everybody_is_shown_as_the_server_says_it(infer: Infer) -> None:
    uid = infer("submit", "echo", "input")[1].strip()
    fetched = infer("fetch", uid)[2]
    assert fetched.startswith("infer: the task is queued: no consumer for tasks without a GPU is there. Start one ")
    # A name that every surface shows alike.
    assert fetched.partition("queued: ")[2].strip() in infer("status", uid)[1]
    assert infer("status", "0" * 64)[2] == "infer: No task has this uid, or it was deleted.\n"
    assert "keys look like is_" in infer("--key", "no-key", "list")[2]
    assert "time_limit_s: " in infer("models", "add", "echo:1", "echo", "--replace", "--time-limit", "0")[2]


def test_a_server_that_wants_a_key_is_told_apart_from_a_wrong_key(
    private_api: RunningApi, infer: Infer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_door(private_api.url, require_key=True) as url:
        monkeypatch.setenv("INFERENCE_SERVER_URL", url)
        assert infer("models", "list")[::2] == (ExitCode.REFUSED, f"infer: {WANTS_KEY}\n")
        code, _, err = infer("--key", f"is_{'0' * 16}_{'0' * 64}", "models", "list")
        assert (code, err.startswith("infer: this key is not known here")) == (ExitCode.REFUSED, True)


def test_a_models_folder_arrives_as_the_zip_that_was_made_of_it(infer: Infer, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(bytes(300_000))
    code, out, _ = infer("models", "add", "echo:1", "with-weights", "--archive-folder", str(folder), "--json")
    packed = b"".join(select([folder]).chunks())
    assert code == 0
    assert json.loads(out)["archive"] == {"sha256": hashlib.sha256(packed).hexdigest(), "size_bytes": len(packed)}
