"""docs/how-to/private-registry.md, against a real registry that asks for a password."""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from tests.doc_pages import section
from tests.e2e.checkout import copy_checkout, paste
from tests.e2e.images import echo_image
from tests.e2e.systems import Process, free_port, standalone_system
from tests.services import missing, require_docker
from tests.waiting import wait_until

PAGE = "docs/how-to/private-registry.md"
USER, PASSWORD = "lab", "a-password-of-the-tests"
CONFIG = """version: 0.1
log: {{level: warn}}
storage: {{filesystem: {{rootdirectory: {folder}/images}}}}
http: {{addr: "127.0.0.1:{port}"}}
auth: {{htpasswd: {{realm: tests, path: {folder}/passwords}}}}
"""


@dataclass(frozen=True)
class Registry:
    """Where it is, and how to log in there without being asked."""

    address: str
    process: Process

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.process.start()
        wait_until(lambda: _answers(self), self.process.output)

    def typed(self, text: str) -> str:
        """Commands of the page, for this registry, with user and password typed in."""
        login = f"echo {PASSWORD} | docker"
        text = text.replace("docker login ", f"{login} login --username {USER} --password-stdin ")
        text = text.replace(
            "docker --config registry login ", f"{login} --config registry login -u {USER} --password-stdin "
        )
        return text.replace("registry.example.org", self.address)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Holds `lab/segment:1`; the Engine does not."""
    require_docker()
    if shutil.which("docker-registry") is None or shutil.which("htpasswd") is None:
        missing("no registry is installed; on Debian: apt-get install docker-registry apache2-utils")
    folder, port = tmp_path_factory.mktemp("registry"), free_port()
    hashed = subprocess.run(["htpasswd", "-nbB", USER, PASSWORD], capture_output=True, text=True, check=True).stdout
    (folder / "passwords").write_text(hashed)
    (folder / "config.yml").write_text(CONFIG.format(folder=folder, port=port))
    process = Process("registry", ["docker-registry", "serve", str(folder / "config.yml")], {}, folder / "log")
    found = Registry(f"127.0.0.1:{port}", process)
    image = f"{found.address}/lab/segment:1"
    try:
        found.start()
        push = ("docker login registry.example.org", f"docker tag {echo_image()} {image}", f"docker push {image}")
        paste(folder, *map(found.typed, push), f"docker rmi {image}", HOME=str(folder / "pusher"))
        yield found
    finally:
        process.end()
        subprocess.run(["docker", "rmi", "--force", image], capture_output=True, check=False)


def _answers(registry: Registry) -> bool:
    try:
        return httpx.get(f"http://{registry.address}/v2/", trust_env=False).status_code == 401
    except httpx.TransportError:
        return False


SUBMIT = "infer submit segment README.md -o out.zip"


def test_a_standalone_server_pulls_with_the_login_of_its_user(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = copy_checkout(tmp_path / "checkout")
    monkeypatch.setenv("HOME", str(tmp_path))
    login, register = section(PAGE, "Standalone").commands
    with standalone_system(tmp_path) as system:
        variables = {"INFERENCE_SERVER_URL": system.url}
        refused = paste(checkout, registry.typed(register), SUBMIT, fails=True, **variables)
        assert "image_not_found" in refused
        assert "wants a login that this consumer does not have" in refused
        assert "finished" in paste(checkout, registry.typed(login), SUBMIT, **variables)
        pull, local, save, load = section(PAGE, "Without giving credentials away").commands
        image = f"{registry.address}/lab/segment:1"
        paste(checkout, f"docker rmi --force {image}", *map(registry.typed, (pull, local, save)), **variables)
        paste(checkout, f"docker rmi --force {image}", registry.typed(load), **variables)
        assert "finished" in paste(checkout, SUBMIT.replace("segment", "segment-local"), **variables)
        # A registry that is away for a while costs time, and no task of a version that ran before.
        paste(checkout, f"docker rmi --force {image}")
        registry.process.kill()
        try:
            uid = paste(checkout, "infer submit segment README.md 2>/dev/null", **variables).strip()
            status = f"infer status {uid}"
            wait_until(lambda: "which ran before, is not on this host" in paste(checkout, status, **variables))
        finally:
            registry.start()
        assert "finished" in paste(checkout, f"infer wait {uid}", status, **variables)


def test_a_consumer_pulls_with_the_folder_that_compose_mounts(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = copy_checkout(tmp_path / "checkout")
    part = section(PAGE, "The whole server")
    (checkout / "compose.registry.yaml").write_text(part.file("yaml"))
    (checkout / ".env").write_text(part.file("text"))
    login, up = part.commands
    assert up == "docker compose up -d --wait"
    monkeypatch.setenv("HOME", str(tmp_path))
    paste(checkout, registry.typed(login))
    service = yaml.safe_load(paste(checkout, "docker compose config 2>/dev/null"))["services"]["job-consumer"]
    mounted = [each["target"] for each in service["volumes"] if each["source"] == str(checkout / "registry")]
    assert mounted == [service["environment"]["DOCKER_CONFIG"]]
    # The consumer itself, with that folder where the variable says.
    monkeypatch.setenv("DOCKER_CONFIG", str(checkout / "registry"))
    (register,) = section(PAGE, "Standalone").commands[1:]
    image = f"{registry.address}/lab/segment:1"
    with standalone_system(tmp_path) as system:
        lines = (f"docker rmi --force {image} || true", registry.typed(register), SUBMIT)
        assert "finished" in paste(checkout, *lines, INFERENCE_SERVER_URL=system.url)
