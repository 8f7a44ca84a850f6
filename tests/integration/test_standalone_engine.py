"""Which engine a standalone server runs models on, and what it says of that when it starts."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from job_consumer.engines.process.walls import Walls, find_walls
from standalone.processes import process_warning
from tests.waiting import PATIENCE_S, wait_until

NO_ENGINE = {"DOCKER_HOST": "unix:///nowhere/docker.sock"}


def command(tmp_path: Path, *options: str) -> list[str]:
    """A standalone server's, on free ports."""
    start = [sys.executable, "-m", "operations", "standalone", "--data-dir", str(tmp_path / "data"), "--port", "0"]
    return [*start, "--no-grpc", *options]


@pytest.mark.parametrize("options", [[], ["--engine", "docker"], ["--engine", "auto"]])
def test_where_no_docker_answers_it_does_not_start_and_names_both_ways_out(tmp_path: Path, options: list[str]) -> None:
    ended = subprocess.run(
        command(tmp_path, *options),
        env=os.environ | NO_ENGINE,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert ended.returncode == 2
    assert "inference-server cannot run: no Docker Engine answers" in ended.stderr
    assert "Start Docker; or ask for --engine process, which runs programs of models' zips as your own" in ended.stderr
    assert ("--engine auto means docker" in ended.stderr) == ("auto" in options)
    assert "ready" not in ended.stdout


def test_with_processes_it_says_once_what_that_means(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with (
        log.open("wb") as out,
        subprocess.Popen(
            command(tmp_path, "--engine", "process"), env=os.environ | NO_ENGINE, stdout=out, stderr=subprocess.STDOUT
        ) as server,
    ):
        try:
            wait_until(lambda: " is ready at " in log.read_text() or server.poll() is not None, log.read_text)
        finally:
            server.send_signal(signal.SIGINT)
    warning = process_warning(find_walls())
    assert [line.count(warning) for line in log.read_text().splitlines() if "WARNING standalone" in line] == [1]
    assert f"(processes of this machine, confined by {find_walls().names()})" in log.read_text()


def test_a_folder_to_read_that_is_not_there_is_refused(tmp_path: Path) -> None:
    ended = subprocess.run(
        command(tmp_path, "--engine", "process", "--readable", str(tmp_path / "absent")),
        env=os.environ | {"NO_COLOR": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert ended.returncode == 2
    assert "absent' does not exist" in ended.stderr


@pytest.mark.parametrize(
    ("walls", "says", "is_silent_on"),
    [
        (
            Walls(namespace=True, landlock=7, seccomp=True),
            ["namespaces, Landlock 7, seccomp", "no network"],
            ["refuses"],
        ),
        (
            Walls(landlock=7, seccomp=True),
            ["confined by Landlock 7, seccomp", "refuses user namespaces", "names, sizes and modes"],
            ["end this user's processes", "use the network", "keys included"],
        ),
        (Walls(namespace=True, landlock=7), ["AF_VSOCK sockets among them"], ["use the network"]),
        (
            Walls(landlock=4, seccomp=True),
            ["end this user's processes, the server included"],
            ["use the network", "empty"],
        ),
        (Walls(landlock=2, seccomp=True), ["empty this user's files"], ["read and change all"]),
        (Walls(landlock=7), ["use the network by UDP and the sockets of this machine's services"], []),
        (
            Walls(),
            ["confined by nothing", "the server's data and keys included", "end this user's", "use the network freely"],
            ["no other process"],
        ),
    ],
)
def test_the_warning_names_what_is_missing(walls: Walls, says: list[str], is_silent_on: list[str]) -> None:
    warning = process_warning(walls)
    assert [text for text in says if text not in warning] == []
    assert [text for text in is_silent_on if text in warning] == []
    assert "\n" not in warning
