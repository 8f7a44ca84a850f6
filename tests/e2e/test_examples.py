"""The examples as a user runs them: with the `infer` command against a standalone server."""

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.images import EXAMPLES, UNTIL_TOLD, echo_image, script_image
from tests.e2e.systems import System, standalone_system
from tests.services import docker_problem, missing, require_docker

OCR_TAG = "inference-server/ocr:1"


@pytest.fixture(scope="module")
def docker_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    require_docker()
    with standalone_system(tmp_path_factory.mktemp("docker")) as system:
        yield system


@pytest.fixture(scope="module")
def process_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with standalone_system(tmp_path_factory.mktemp("process"), engine="process") as system:
        yield system


def infer(system: System, *arguments: str | Path, expect: int = 0) -> str:
    """Run the command as a user would; returns its stdout."""
    command = [sys.executable, "-m", "inference_client", "--server", system.url, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == expect, f"{done.stdout}\n{done.stderr}\n{system.logs()}"
    return done.stdout


def run_script(script: str, *arguments: str | Path) -> None:
    subprocess.run([sys.executable, str(EXAMPLES / script), *map(str, arguments)], check=True, capture_output=True)


def test_the_ocr_model_reads_the_words_of_a_page(docker_server: System, tmp_path: Path) -> None:
    if problem := docker_problem("python:3.13-slim"):
        missing(problem)
    subprocess.run(
        ["docker", "build", "--quiet", "--tag", OCR_TAG, str(EXAMPLES / "ocr")], check=True, capture_output=True
    )
    lines = ["Spleen volume 212 ml", "No contrast agent was given", "Report 4711 of ward B"]
    run_script("ocr/build_model_zip.py", tmp_path / "model.zip")
    run_script("ocr/make_page.py", tmp_path / "page.png", *lines)
    infer(docker_server, "models", "add", OCR_TAG, "ocr", "--archive", tmp_path / "model.zip")
    infer(docker_server, "submit", "ocr", tmp_path / "page.png", "-o", tmp_path / "out.zip")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        (page,) = json.loads(archive.read("text.json"))["pages"]
        assert [line["text"] for line in page["lines"]] == lines
        pictures = [name for name in archive.namelist() if name.endswith(".png")]
        assert archive.read(pictures[0]).startswith(b"\x89PNG")


def test_the_wordcount_program_runs_without_docker(process_server: System, tmp_path: Path) -> None:
    run_script("zip_folder.py", EXAMPLES / "wordcount", tmp_path / "model.zip")
    text = tmp_path / "text.txt"
    text.write_text("zip in, zip out\n")
    infer(process_server, "models", "add", "process:count.py", "words", "--archive", tmp_path / "model.zip")
    infer(process_server, "submit", "words", text, "-o", tmp_path / "out.zip")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert "zip,2" in archive.read("words.csv").decode()


def test_a_server_with_docker_refuses_programs_without_a_container(docker_server: System, tmp_path: Path) -> None:
    run_script("zip_folder.py", EXAMPLES / "wordcount", tmp_path / "model.zip")
    command = ("models", "add", "process:count.py", "words", "--archive", tmp_path / "model.zip", "--json")
    assert json.loads(infer(docker_server, *command, expect=4))["error"] == "InvalidRequest"


def test_the_command_submits_a_folder_and_tells_its_life(docker_server: System, tmp_path: Path) -> None:
    folder = tmp_path / "case"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep/a.txt").write_text("hello")
    infer(docker_server, "models", "add", echo_image(), "echo", "--pull-policy", "never")
    assert "echo" in infer(docker_server, "models", "list")
    assert json.loads(infer(docker_server, "models", "show", "echo", "--json"))["version"] == 1
    uid = infer(docker_server, "submit", "echo", folder).strip()
    infer(docker_server, "wait", uid)
    assert json.loads(infer(docker_server, "status", uid, "--json"))["status"] == "finished"
    infer(docker_server, "fetch", uid, "-o", tmp_path / "out.zip")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.read("deep/a.txt") == b"hello"
    infer(docker_server, "delete", uid)
    infer(docker_server, "status", uid, expect=3)


def test_the_command_says_why_a_task_failed(docker_server: System, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    infer(docker_server, "models", "add", script_image("echo sorry >&2; exit 9"), "sorry", "--pull-policy", "never")
    told = json.loads(infer(docker_server, "submit", "sorry", tmp_path / "x", "--wait", "--json", expect=1))
    assert (told["reason"], told["exit_code"]) == ("exit_code", 9)
    assert infer(docker_server, "logs", told["uid"]) == "sorry\n"
    infer(docker_server, "submit", "nobody", tmp_path / "x", expect=3)


def test_a_cancelled_task_has_an_exit_code_of_its_own(docker_server: System, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    infer(docker_server, "models", "add", script_image(UNTIL_TOLD), "slow", "--pull-policy", "never")
    uid = infer(docker_server, "submit", "slow", tmp_path / "x").strip()
    infer(docker_server, "cancel", uid)
    infer(docker_server, "wait", uid, "--timeout", "10m", expect=8)
