"""docs/how-to/private-registry.md, against a real registry that asks for a password."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import httpx
import pytest
import yaml

from contract.schemas import PullPolicy
from job_consumer.engines import EngineUnavailable, ImageNotFound
from job_consumer.engines.docker.engine import DockerEngine
from tests.doc_pages import section
from tests.e2e.checkout import copy_checkout, paste
from tests.e2e.images import echo_image
from tests.e2e.systems import Process, free_port, services_system, standalone_system
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
        config = "--config secrets/registry login"
        text = text.replace(f"docker {config} ", f"{login} {config} -u {USER} --password-stdin ")
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
        pull, local, save, load = section(PAGE, "Without giving logins away").commands
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


def test_a_consumer_pulls_with_the_login_in_the_folder_that_compose_mounts(
    registry: Registry, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = copy_checkout(tmp_path / "checkout")
    (login,) = section(PAGE, "The whole server").commands
    composed = paste(checkout, "docker compose config 2>/dev/null")
    service = yaml.safe_load(composed)["services"]["job-consumer"]
    file = PurePosixPath(service["environment"]["REGISTRY_AUTH_FILE"])
    mounted = {each["target"]: each["source"] for each in service["volumes"]}
    assert mounted[str(file.parent)] == str(checkout / "secrets/registry")
    # The consumer itself, with that folder.
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(checkout / "secrets/registry" / file.name))
    (register,) = section(PAGE, "Standalone").commands[1:]
    image = f"{registry.address}/lab/segment:1"
    with services_system(tmp_path, postgres_url) as system:
        variables = {"INFERENCE_SERVER_URL": system.url}
        paste(checkout, f"docker rmi --force {image} || true")

        def wait_until_shown(*words: str) -> None:
            show = partial(paste, checkout, "infer models show segment", **variables)
            wait_until(lambda: not [each for each in words if each not in " ".join(show().split())], show)

        paste(checkout, registry.typed(register), **variables)
        wait_until_shown("no consumer gets its image", "wants a login that this consumer does not have")
        # It is used without a restart.
        paste(checkout, registry.typed(login))
        assert "finished" in paste(checkout, SUBMIT, **variables)
        assert PASSWORD not in system.logs()


def test_a_lookup_of_an_image_asks_the_registry_and_pulls_nothing(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    image = f"{registry.address}/lab/segment"
    paste(tmp_path, f"docker rmi --force {image}:1 || true")
    config = tmp_path / "login" / "config.json"
    with closing(DockerEngine(work_dir=tmp_path, work_volume=None, registry_auth_file=config)) as engine:
        with pytest.raises(ImageNotFound, match="wants a login that this consumer does not have"):
            engine.look_up_image(f"{image}:1", PullPolicy.MISSING)
        paste(tmp_path, registry.typed("docker login registry.example.org"), DOCKER_CONFIG=str(config.parent))
        assert engine.look_up_image(f"{image}:1", PullPolicy.MISSING)[0] is False
        with pytest.raises(ImageNotFound, match="no such tag"):
            engine.look_up_image(f"{image}:2", PullPolicy.MISSING)
        with pytest.raises(ImageNotFound, match="its pull policy is never"):
            engine.look_up_image(f"{image}:1", PullPolicy.NEVER)
        assert engine.find_image(f"{image}:1") is None
        engine.ensure_image(f"{image}:1", PullPolicy.MISSING)
        assert engine.look_up_image(f"{image}:1", PullPolicy.MISSING)[0] is True
        assert engine.look_up_image(f"{image}:1", PullPolicy.NEVER)[0] is True
        assert engine.look_up_image(f"{image}:1", PullPolicy.ALWAYS)[0] is False
        registry.process.kill()
        try:
            with pytest.raises(EngineUnavailable, match="must be pulled for each run and no registry could be"):
                engine.look_up_image(f"{image}:1", PullPolicy.ALWAYS)
            with pytest.raises(ImageNotFound, match="is not on this host and no registry could be reached"):
                engine.look_up_image(f"{image}:2", PullPolicy.MISSING)
        finally:
            registry.start()
