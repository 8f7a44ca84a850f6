"""A newcomer who pastes what the README says, from nothing to a result behind TLS."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.compose import ROOT, Compose, beside_others
from tests.e2e.readme import commands, programs, section
from tests.e2e.systems import standalone_system
from tests.services import require_docker

CLONE = "git clone <this repository> inference-server && cd inference-server"
URL = "https://localhost"
LIVE = "Live calls: the second door"
LIVE_ADDRESS = "127.0.0.1:9000"
GREETED = '{"greeting": "Hello foo from bar", "num": "60"}'


@dataclass(frozen=True)
class Newcomer:
    """A shell in a fresh checkout, and the server it starts."""

    folder: Path
    compose: Compose

    def paste(self, *lines: str) -> str:
        """Run lines in one shell that stops at the first failure; returns what they printed."""
        done = self.run("bash", "-euc", "\n".join(lines).replace(URL, self.compose.url))
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{self.compose.logs()}"
        return done.stdout

    def execute(self, program: str) -> subprocess.CompletedProcess[str]:
        """Run a Python program against this server."""
        trust = {"INFERENCE_SERVER_URL": self.compose.url, "REQUESTS_CA_BUNDLE": "traefik/certs/server.crt"}
        return self.run(sys.executable, "-c", program, **trust)

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command with the variables of a machine that also has other servers."""
        return run_in(self.folder, *command, **self.compose.variables, **variables)


def run_in(folder: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a checkout, with its environment activated."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, **variables}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400, check=False
    )


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Newcomer]:
    require_docker()
    folder = tmp_path_factory.mktemp("newcomer") / "inference-server"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    # What `make setup` would make: everything locked in requirements/dev.txt.
    (folder / ".venv").symlink_to(sys.prefix)
    compose = Compose(folder, beside_others())
    try:
        yield Newcomer(folder, compose)
    finally:
        compose.run("down", "--volumes", "--timeout", "5", check=False)


@pytest.fixture(scope="module")
def server(newcomer: Newcomer) -> Newcomer:
    """With the server started as the README says, and one task run."""
    clone, *rest = commands("Run it for real")
    assert clone == CLONE
    newcomer.paste(*rest)
    return newcomer


@pytest.mark.timeout(600)
def test_run_it_for_real_is_short_and_ends_with_a_result(server: Newcomer) -> None:
    assert len(commands("Run it for real")) < 15
    with zipfile.ZipFile(server.folder / "result.zip") as archive:
        assert archive.read("echo/Dockerfile") == (ROOT / "examples/echo/Dockerfile").read_bytes()


def test_the_programs_register_a_model_submit_a_task_and_fetch_its_output(server: Newcomer) -> None:
    server.paste(*commands("With Python"))
    register, submit = programs("With Python")
    registered = server.execute(register)
    assert registered.stdout.startswith("200 {'human_readable_id': 'my-first-model', 'version': 1, "), registered
    submitted = server.execute(submit)
    assert submitted.stdout.endswith(" is in output.zip\n"), submitted
    with zipfile.ZipFile(server.folder / "output.zip") as archive:
        assert archive.read("Dockerfile") == (ROOT / "examples/echo/Dockerfile").read_bytes()


def test_the_program_says_what_the_server_refuses(server: Newcomer) -> None:
    server.paste(*commands("With Python"))
    _, submit = programs("With Python")
    refused = server.execute(submit.replace("my-first-model", "no-such-model"))
    assert refused.returncode == 1
    assert refused.stderr.startswith("550: "), refused
    assert "no-such-model" in refused.stderr


@pytest.mark.timeout(600)
def test_live_calls_work_on_the_server_behind_tls(server: Newcomer) -> None:
    exports = [line for line in commands("Run it for real") if line.startswith("export ")]
    assert GREETED in server.paste(*exports, *commands(LIVE))
    (program,) = programs(LIVE)
    (channel,) = re.findall(r"`(grpc\.secure_channel\(.*?\))`", section(LIVE))
    port = server.compose.variables["HTTPS_PORT"]
    program = program.replace(f'grpc.insecure_channel("{LIVE_ADDRESS}")', channel.replace(":443", f":{port}"))
    called = server.execute('certificate = open("traefik/certs/server.crt", "rb").read()\n' + program)
    assert called.stdout == "Hello foo from \n", called


@pytest.mark.timeout(600)
def test_live_calls_work_on_a_standalone_server(tmp_path: Path) -> None:
    require_docker()
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    with standalone_system(tmp_path) as system:
        door = f"127.0.0.1:{system.grpc_port}"
        variables = {"INFERENCE_SERVER_URL": system.url, "INFERENCE_SERVER_GRPC": f"http://{door}"}
        pasted = run_in(tmp_path, "bash", "-euc", "\n".join(commands(LIVE)), **variables)
        assert GREETED in pasted.stdout, f"{pasted}\n{system.logs()}"
        (program,) = programs(LIVE)
        called = run_in(tmp_path, sys.executable, "-c", program.replace(LIVE_ADDRESS, door))
        assert called.stdout == "Hello foo from \n", f"{called}\n{system.logs()}"
        run_in(tmp_path, "infer", "undeploy", "greeter", **variables)


def test_the_live_calls_section_is_short() -> None:
    assert len(section(LIVE).strip().splitlines()) <= 25
