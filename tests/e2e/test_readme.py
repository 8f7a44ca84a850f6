"""A newcomer who pastes what the README says, from nothing to a result behind TLS, and what the first pages say."""

import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.doc_pages import section
from tests.e2e.checkout import copy_checkout, run_in
from tests.e2e.compose import ROOT, Compose, beside_others
from tests.e2e.systems import standalone_system
from tests.services import require_docker

CLONE = "git clone <this repository> inference-server && cd inference-server"
URL = "https://localhost"
REAL = section("README.md", "Run it for real")
PYTHON = section("docs/how-to/without-a-client.md", "With Python")
LIVE = section("docs/grpc/README.md", "The first call")
LIVE_ADDRESS = "127.0.0.1:9000"
Execute = Callable[[str], subprocess.CompletedProcess[str]]
"""Runs a Python program."""
READ_BACK = """
import zipfile
with zipfile.ZipFile("output.zip") as archive, open("examples/echo/Dockerfile", "rb") as sent:
    assert archive.read("Dockerfile") == sent.read()
print("Dockerfile is back")
"""
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

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command with the variables of a machine that also has other servers."""
        return run_in(self.folder, *command, **self.compose.variables, **variables)


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Newcomer]:
    require_docker()
    folder = copy_checkout(tmp_path_factory.mktemp("newcomer") / "inference-server")
    compose = Compose(folder, beside_others())
    try:
        yield Newcomer(folder, compose)
    finally:
        compose.run("down", "--volumes", "--timeout", "5", check=False)


@pytest.fixture(scope="module")
def server(newcomer: Newcomer) -> Newcomer:
    """With the server started as the README says, and one task run."""
    clone, *rest = REAL.commands
    assert clone == CLONE
    newcomer.paste(*rest)
    return newcomer


def test_run_it_for_real_is_short_and_ends_with_a_result(server: Newcomer) -> None:
    assert len(REAL.commands) < 15
    with zipfile.ZipFile(server.folder / "result.zip") as archive:
        assert archive.read("echo/Dockerfile") == (ROOT / "examples/echo/Dockerfile").read_bytes()


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Execute]:
    """Runs a Python program against a standalone server, in a folder where the commands of the page were pasted."""
    require_docker()
    folder = tmp_path_factory.mktemp("open")
    shutil.copytree(ROOT / "examples", folder / "examples")
    with standalone_system(folder) as system:
        variables = {"INFERENCE_SERVER_URL": system.url}
        pasted = run_in(folder, "bash", "-euc", "\n".join(PYTHON.commands), **variables)
        assert pasted.returncode == 0, pasted
        yield lambda program: run_in(folder, sys.executable, "-c", program, **variables)


def test_the_programs_register_a_model_submit_a_task_and_fetch_its_output(
    open_server: Execute,
) -> None:
    register, submit = PYTHON.programs
    registered = open_server(register)
    assert registered.stdout.startswith("200 {'human_readable_id': 'my-first-model', 'version': 1, "), registered
    submitted = open_server(submit + READ_BACK)
    assert submitted.stdout.endswith(" is in output.zip\nDockerfile is back\n"), submitted


def test_the_program_says_what_the_server_refuses(
    open_server: Execute,
) -> None:
    _, submit = PYTHON.programs
    refused = open_server(submit.replace("my-first-model", "no-such-model"))
    assert refused.returncode == 1
    assert refused.stderr.startswith("550: "), refused
    assert "no-such-model" in refused.stderr


def test_live_calls_work_on_the_server_behind_tls(server: Newcomer) -> None:
    exports = [line for line in REAL.commands if line.startswith("export ")]
    assert GREETED in server.paste(*exports, *LIVE.commands)
    (program,) = LIVE.programs
    text = (ROOT / LIVE.page).read_text(encoding="utf-8")
    (channel,) = re.findall(r"`(grpc\.secure_channel\(.*?\))`", text)
    port = server.compose.variables["HTTPS_PORT"]
    program = program.replace(f'grpc.insecure_channel("{LIVE_ADDRESS}")', channel.replace(":443", f":{port}"))
    (pair,) = re.findall(r'`(\("x-api-key", key\))`', text)
    program = program.replace('("application", "greeter")', f'("application", "greeter"), {pair}')
    key = server.paste(*exports, 'echo "$INFERENCE_SERVER_KEY"').strip()
    called = server.run(sys.executable, "-c", f'certificate, key = open("server.crt", "rb").read(), {key!r}\n{program}')
    assert called.stdout == "Hello foo from \n", called


def test_live_calls_work_on_a_standalone_server(tmp_path: Path) -> None:
    require_docker()
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    with standalone_system(tmp_path) as system:
        door = f"127.0.0.1:{system.grpc_port}"
        variables = {"INFERENCE_SERVER_URL": system.url, "INFERENCE_SERVER_GRPC": f"http://{door}"}
        pasted = run_in(tmp_path, "bash", "-euc", "\n".join(LIVE.commands), **variables)
        assert GREETED in pasted.stdout, f"{pasted}\n{system.logs()}"
        (program,) = LIVE.programs
        called = run_in(tmp_path, sys.executable, "-c", program.replace(LIVE_ADDRESS, door))
        assert called.stdout == "Hello foo from \n", f"{called}\n{system.logs()}"
        run_in(tmp_path, "infer", "undeploy", "greeter", **variables)


def test_the_readme_shows_the_first_result_and_a_real_server_on_a_screen_each() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for title in ("The first result", "Run it for real"):
        (below,) = re.findall(rf"^## {title}\n(.*?)^## ", text, re.DOTALL | re.MULTILINE)
        assert len(below.splitlines()) <= 45, title
