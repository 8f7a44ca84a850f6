"""From an empty folder to a result, as a person does it at a terminal: init, check, build, submit."""

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import pytest

from contract.access import Scope
from contract.claims import ClaimRequest
from contract.schemas import ConsumerRegistration
from inference_client import InferenceClient
from inference_client.errors import ModelNotFound
from job_consumer.engines.docker.engine import DockerEngine
from private_api.database import Database
from private_api.keys import create_key
from tests.e2e.compose import build_image
from tests.e2e.systems import System, standalone_system
from tests.integration.infer_harness import User
from tests.integration.public_door import serve_door
from tests.running_api import RunningApi, run_private_api
from tests.services import docker_problem, missing, require_docker
from tests.terminal import Shown

MODEL = f"is-test-seg-{secrets.token_hex(4)}"
"""Images have its name, and other tests may run on this Engine."""
MARKED = {"cells.pgm": {"pixels": 64, "marked": 8}}


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    """Somebody whose `docker` builds as the Engine here can."""
    require_docker()
    if problem := docker_problem("python:3.13-slim"):
        missing(problem)
    yield User(tmp_path / "home", **{"DOCKER_BUILDKIT": "0"} | _docker_variables())
    client = docker.from_env()
    for tag in [tag for image in client.images.list() for tag in image.tags if MODEL in tag]:
        client.images.remove(tag)
    client.close()


def _docker_variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("DOCKER_")}


def types(user: User, *arguments: str | Path, expect: int = 0) -> Shown:
    shown = user.types(*map(str, arguments))
    assert shown.code == expect, shown.text
    return shown


def init(user: User) -> Path:
    folder = user.home / MODEL
    types(user, "init", folder)
    return folder


@pytest.fixture
def server(tmp_path: Path) -> Iterator[System]:
    with standalone_system(tmp_path / "server") as system:
        yield system


@pytest.fixture(autouse=True)
def _server_folder(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()


def test_a_new_folder_becomes_a_model_that_computes(user: User, server: System) -> None:
    folder = init(user)
    tested = subprocess.run(
        [sys.executable, str(folder / "test_predict.py")], capture_output=True, text=True, check=False
    )
    assert tested.returncode == 0, tested.stderr

    case = ("--input", folder / "example" / "input", "--model", folder / "model")
    shown = types(user, "check", folder, *case)
    assert "1 of 1: cells.pgm" in shown.text
    assert "finished: a poll would answer 200" in shown.text
    assert "report.json" in shown.text

    user.environment["INFERENCE_SERVER_URL"] = server.url
    shown = types(user, "build", folder, "--check", *case)
    assert "is on this machine, so its consumer is taken to use this Docker Engine" in shown.text
    assert "registered, version 1" in shown.text

    types(user, "submit", MODEL, folder / "example" / "input", "-o", user.home / "result", "--extract")
    assert json.loads((user.home / "result" / "report.json").read_text()) == MARKED

    for path in folder.rglob("*"):
        os.utime(path, (0, 0))
    types(user, "build", folder, "--model", folder / "model")
    with InferenceClient(server.url) as client:
        model = client.get_model(MODEL)
    assert model.version == 2
    assert len(list((server.data_dir / "archives" / "models").glob("*.zip"))) == 1, "the same files, stored twice"


def test_an_image_whose_check_fails_is_not_registered(user: User, server: System) -> None:
    folder = init(user)
    user.environment["INFERENCE_SERVER_URL"] = server.url
    shown = types(user, "build", folder, "--check", "--input", folder / "model", "--model", folder / "model", expect=1)
    assert "the input holds no .pgm image, but: threshold.json" in shown.text
    assert "was not registered, because the check failed" in shown.text
    with InferenceClient(server.url) as client, pytest.raises(ModelNotFound):
        client.get_model(MODEL)


def test_the_servers_image_checks_where_its_code_is_not_installed(user: User) -> None:
    folder = init(user)
    case = ("--input", folder / "example" / "input", "--model", folder / "model", "--checker", build_image())
    shown = types(user, "check", folder, *case, "-o", user.home / "out.zip")
    assert "1 of 1: cells.pgm" in shown.text
    assert "finished: a poll would answer 200" in shown.text
    assert (user.home / "out.zip").stat().st_uid == user.home.stat().st_uid
    shown = types(user, "check", folder, *case[:2], *case[4:], expect=1)
    assert "reason exit_code: the container ended with exit code 2" in shown.text
    with_volumes = subprocess.run(["docker", "volume", "ls", "-q"], capture_output=True, text=True, check=True)
    assert "inference-server-check-" not in with_volumes.stdout


def test_without_code_and_image_the_way_to_get_it_is_said(user: User) -> None:
    shown = types(user, "check", "busybox:1.37", "--input", user.home, "--checker", "localhost:1/none:1", expect=2)
    assert "name it with --checker" in shown.text


@contextmanager
def closed_server(folder: Path) -> Iterator[tuple[RunningApi, InferenceClient, dict[str, str]]]:
    """A server without consumers, a client with a key, and the variables by which `infer` finds both."""
    url = f"sqlite:///{folder / 'db'}"
    with run_private_api(url, folder / "data") as api, serve_door(api.url) as door:
        database = Database(url)
        key = create_key(database, owner="ada", scopes=[Scope.SUBMIT, Scope.MODELS], lifetime=None)
        database.close()
        with InferenceClient(door, key=key) as client:
            yield api, client, {"INFERENCE_SERVER_URL": door, "INFERENCE_SERVER_KEY": key}


@pytest.mark.parametrize("code", [0, 1])
def test_a_pushed_image_is_registered_for_every_host(user: User, tmp_path: Path, code: int) -> None:
    folder, tag = init(user), f"registry.example.org/lab/{MODEL}:1"
    real = shutil.which("docker")
    wrapper = user.home / "bin" / "docker"
    wrapper.parent.mkdir()
    # There is no registry here: all but the push is real.
    wrapper.write_text(f'#!/bin/sh\n[ "$1" = push ] && echo "pushing $2" && exit {code}\nexec {real} "$@"\n')
    wrapper.chmod(0o755)
    with closed_server(tmp_path) as (_, client, variables):
        user.environment |= variables | {"PATH": f"{wrapper.parent}:{user.environment['PATH']}"}
        shown = types(user, "build", folder, "--push", "--tag", tag, expect=2 * code)
        models = [(model.container_tag, model.pull_policy) for model in client.list_models()]
    assert f"pushing {tag}" in shown.text
    assert models == ([] if code else [(tag, "missing")])
    assert code == 0 or f"{tag} was not pushed" in shown.text


@pytest.mark.parametrize(("host", "code"), [("gpu-host-7", 2), ("here", 0)])
def test_an_image_is_registered_only_where_every_consumer_has_it(
    user: User, tmp_path: Path, host: str, code: int
) -> None:
    engine = DockerEngine(work_dir=tmp_path, work_volume=None)
    here = engine.host_name()
    engine.close()
    folder = init(user)
    with closed_server(tmp_path) as (api, client, variables):
        with api.consumer() as consumer:
            consumer.register(ConsumerRegistration(consumer="c", replica_slots=0))
            consumer.claim(ClaimRequest(consumer="c", host=here if host == "here" else host))
        user.environment |= variables
        shown = types(user, "build", folder, "--model", folder / "model", expect=code)
        models = [model.human_readable_id for model in client.list_models()]
    if host == "here":
        assert f"every consumer for cpu tasks uses the Docker Engine of {here}" in shown.text
        assert models == [MODEL]
        return
    assert models == []
    tag = next(word for word in shown.text.split() if word.startswith(f"{MODEL}:"))
    assert f"docker save {tag} | ssh gpu-host-7 docker load" in shown.text
    assert f"infer models add {tag} {MODEL} --pull-policy never --replace --archive-folder" in shown.text
    assert f"--push --tag REGISTRY/{tag}" in shown.text
