"""A clone of the repository on a host with nothing but Docker: the first start, and what an operator does to it later.

The commands of resets are those that operators have used for years, word for word.
"""

import json
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from tests.doc_pages import section
from tests.e2e.compose import ROOT, Compose, beside_others, make_files
from tests.e2e.images import echo_image
from tests.e2e.systems import free_port
from tests.services import require_docker
from tests.waiting import START_S, wait_until
from tests.zips import make_zip, read_zip

SOFT_RESET = ["docker-compose down && docker-compose up -d"]
HARD_RESET = ["docker-compose down", "docker volume prune", "docker-compose up -d"]
TAKE_DOWN = ["docker-compose down", "docker volume prune", "rm mount", "docker-compose up -d"]
CERTIFICATE = "docker compose exec -T traefik cat /run/certificate/server.crt > server.crt"
ADMIN_KEY = "docker compose exec -T private-api inference-server keys create --owner ada --scope admin"
CONTENT = {"a.txt": b"kept"}


@dataclass(frozen=True)
class Host:
    """A shell in a clone, on a host that has Docker and nothing else."""

    compose: Compose
    bin: Path

    @property
    def url(self) -> str:
        return self.compose.url

    @property
    def folder(self) -> Path:
        return self.compose.folder

    def type(self, *lines: str) -> str:
        """Run lines as they are, with no variables but those that keep this project out of the way of others."""
        kept = {name: os.environ[name] for name in ("HOME", "DOCKER_HOST") if name in os.environ}
        done = subprocess.run(
            ["/bin/sh", "-euc", "\n".join(lines)],
            cwd=self.folder,
            env={**kept, "PATH": str(self.bin), **self.compose.variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{lines}: {done.stdout}\n{done.stderr}\n{self.compose.logs()}"
        return done.stdout

    def lose(self, *names: str) -> None:
        """Remove folders of the storage. They are other users', which these tests need not be."""
        disk = (self.folder / "mount").resolve()
        paths = [f"/disk/{name}" for name in names]
        command = ["docker", "run", "--rm", "--volume", f"{disk}:/disk", "busybox:1.37", "rm", "-r", *paths]
        subprocess.run(command, check=True)

    def states(self) -> list[str]:
        """The state of every container, after its service's name."""
        return self.type("docker compose ps --all --format '{{.Service}} {{.Status}}'").splitlines()

    def wait_ready(self) -> None:
        self.type(CERTIFICATE)
        wait_until(self._is_ready, self.compose.logs, within_s=START_S)

    def _is_ready(self) -> bool:
        try:
            return self.get("/readyz").status_code == 200
        except requests.ConnectionError:
            return False

    def post(self, path: str, **arguments: object) -> requests.Response:
        verify = str(self.folder / "server.crt")
        return requests.post(url=f"{self.url}{path}", verify=verify, timeout=300, **arguments)  # type: ignore[arg-type]

    def get(self, path: str, key: str | None = None) -> requests.Response:
        headers = {"X-API-Key": key} if key else {}
        return requests.get(
            url=f"{self.url}{path}", verify=str(self.folder / "server.crt"), headers=headers, timeout=300
        )

    def submit(self) -> str:
        """Register a model and submit a task, as a client of years ago does; returns the uid."""
        params = {
            "container_tag": echo_image(),
            "human_readable_id": f"m-{secrets.token_hex(6)}",
            "description": "This model is a test inference model",
            "model_available": True,
            "use_gpu": False,
        }
        res = self.post("/api/tasks/", params=params, files={"zip_file": make_zip({"weights": b"0"})})
        assert res.ok, res.text
        params = {"human_readable_id": params["human_readable_id"]}
        res = self.post("/api/tasks/", params=params, files={"zip_file": make_zip(CONTENT)})
        assert res.ok, res.text
        return str(json.loads(res.content))

    def output(self, uid: str) -> dict[str, bytes]:
        """Poll until the task ends; the files of its output."""
        wait_until(
            lambda: self.get(f"/api/tasks/{uid}").status_code not in (551, 554), self.compose.logs, within_s=START_S
        )
        res = self.get(f"/api/tasks/{uid}")
        assert res.ok, res.text
        return read_zip(res.content)


def test_the_resets_are_those_of_the_page() -> None:
    assert section("docs/operations/install.md", "Resets").commands == [*SOFT_RESET, *HARD_RESET]


def docker_of(project: str) -> str:
    """A `docker` that prunes the volumes of one project: this machine has others, and nobody answers the question."""
    real = shutil.which("docker")
    return (
        f'#!/bin/sh\ncase "$1 $2" in\n"volume prune") set -- volume prune --force '
        f'--filter "label=com.docker.compose.project={project}" ;;\nesac\nexec {real} "$@"\n'
    )


def is_fine(state: str) -> bool:
    """Whether a service is healthy, waits for its end, or did what it was there for."""
    return re.search(r" Up .*\(healthy\)$|^sweeper Up |^(init|migrate) Exited \(0\)", state) is not None


def make_host(folder: Path) -> Host:
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder / "clone")], check=True)
    # An image of its own, which is not there yet; ports that are not the usual ones.
    other = {"HTTPS_PORT": str(free_port()), "HTTP_PORT": str(free_port())}
    image = {"INFERENCE_SERVER_IMAGE": f"inference-server-first:{secrets.token_hex(4)}"}
    compose = Compose(folder / "clone", {**beside_others(), **other, **image})
    (folder / "bin").mkdir()
    commands = {"docker": docker_of(compose.project), "docker-compose": '#!/bin/sh\nexec docker compose "$@"\n'}
    for name, script in commands.items():
        (folder / "bin" / name).write_text(script)
        (folder / "bin" / name).chmod(0o755)
    for name in ("cat", "rm"):
        (folder / "bin" / name).symlink_to(str(shutil.which(name)))
    return Host(compose, folder / "bin")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A clone that nothing was done to."""
    require_docker()
    host = make_host(tmp_path_factory.mktemp("host"))
    try:
        yield host
    finally:
        host.compose.run("down", "--volumes", "--timeout", "5", check=False)
        subprocess.run(["docker", "rmi", host.compose.variables["INFERENCE_SERVER_IMAGE"]], check=False)


@pytest.fixture(scope="module")
def host(clone: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """With its data bound to a folder, `mount`, which leads to a disk; and with models that may be registered."""
    clone.compose.run("down", "--volumes", "--timeout", "5")
    disk = tmp_path_factory.mktemp("disk")
    (clone.folder / "mount").symlink_to(disk)
    clone.folder.joinpath(".env").write_text(f"ALLOW_PUBLIC_POST_MODEL=1\nSTORAGE_DIR={clone.folder}/mount\n")
    clone.type("docker compose up -d")
    clone.wait_ready()
    yield clone
    clone.compose.run("down", "--timeout", "5")
    # Root's and other users', which these tests need not be.
    for folder in (disk, clone.folder):
        empty = ["sh", "-c", "rm -rf /emptied/mount; [ -e /emptied/Dockerfile ] || rm -rf /emptied/*"]
        subprocess.run(["docker", "run", "--rm", "--volume", f"{folder}:/emptied", "busybox:1.37", *empty], check=True)


def test_one_command_starts_it_and_a_hard_reset_starts_it_again(clone: Host) -> None:
    clone.type("docker compose up -d")
    clone.wait_ready()
    wait_until(lambda: all(map(is_fine, clone.states())), lambda: str(clone.states()))
    assert len(clone.states()) == 11
    assert clone.get("/docs").status_code == 200
    # Nobody allowed it, so nothing but the door's own answer.
    refused = clone.post("/api/tasks/", params={"container_tag": "x", "human_readable_id": "x"})
    assert refused.status_code == 403
    assert refused.json()["error"] == "PermissionDenied"
    clone.type(*HARD_RESET)
    clone.wait_ready()


def test_http_leads_to_the_port_of_https(host: Host) -> None:
    plain = f"http://localhost:{host.compose.variables['HTTP_PORT']}/docs?a=b"
    answer = requests.get(plain, allow_redirects=False, timeout=60)
    assert (answer.status_code, answer.headers["Location"]) == (301, f"{host.url}/docs?a=b")


@pytest.mark.long
def test_a_task_is_run_and_a_soft_reset_keeps_everything(host: Host) -> None:
    uid = host.submit()
    assert host.output(uid) == CONTENT
    host.type(*SOFT_RESET)
    host.wait_ready()
    assert host.output(uid) == CONTENT


@pytest.mark.long
def test_a_hard_reset_keeps_what_is_bound_to_a_folder(host: Host) -> None:
    uid, key = host.submit(), host.type(ADMIN_KEY).strip()
    certificate = (host.folder / "server.crt").read_bytes()
    host.output(uid)
    host.type(*HARD_RESET)
    host.wait_ready()
    assert host.output(uid) == CONTENT
    assert host.get("/api/tasks/", key).status_code == 200
    assert (host.folder / "server.crt").read_bytes() == certificate


@pytest.mark.long
def test_lost_secrets_lock_nobody_out(host: Host) -> None:
    uid, key = host.submit(), host.type(ADMIN_KEY).strip()
    host.output(uid)
    host.type("docker-compose down")
    host.lose("secret-service", "secret-postgres", "secret-rabbitmq")
    told = host.type("docker-compose up -d", "docker compose logs --no-log-prefix --no-color init")
    host.wait_ready()
    assert told.splitlines() == ["made service_token", "made postgres_password", "made rabbit_password"]
    assert host.output(uid) == CONTENT
    assert host.get("/api/tasks/", key).status_code == 200
    ready = host.get("/readyz").json()
    assert (ready["database"], ready["broker"]) == ("ready", "ready")
    # A task still finds its consumer, which shows the new token and hears the new broker's bells.
    assert host.output(host.submit()) == CONTENT


@pytest.mark.long
def test_lost_data_leaves_secrets_that_still_work(host: Host) -> None:
    host.type("docker-compose down")
    host.lose("data", "postgres")
    host.type("docker-compose up -d")
    host.wait_ready()
    assert host.output(host.submit()) == CONTENT


@pytest.mark.long
def test_a_full_take_down_leaves_an_empty_server(host: Host) -> None:
    uid = host.submit()
    host.output(uid)
    host.type(*TAKE_DOWN)
    host.wait_ready()
    assert host.get(f"/api/tasks/{uid}").status_code == 554
    assert host.output(host.submit()) == CONTENT


def test_no_container_of_it_shows_a_secret(host: Host) -> None:
    # As an operator takes them out for Swarm.
    page = (host.folder / "docs/operations/multi-host.md").read_text()
    host.type(*re.findall(r"^ {4}(docker compose run .* init cat .*)$", page, re.MULTILINE))
    files = [path for path in (host.folder / "secrets").iterdir() if path.is_file() and path.name != ".gitignore"]
    made = [path.read_text() for path in files]
    assert [len(secret) for secret in made] == [64] * 3
    for path in files:
        path.unlink()
    containers = host.compose.run("ps", "--all", "--quiet").split()
    inspected = subprocess.run(["docker", "inspect", *containers], check=True, capture_output=True, text=True).stdout
    logged = host.compose.run("logs", "--no-color")
    assert not [secret for secret in made if secret in inspected or secret in logged]


def test_make_up_says_where_to_go_and_shows_the_first_key_once(host: Host) -> None:
    """The last that is done to the host: from here on it requires keys."""
    variables = {**os.environ, **host.compose.variables, "REQUIRE_API_KEY": "1"}
    command = ["make", "up"]
    first, again = (
        subprocess.run(command, cwd=host.folder, env=variables, capture_output=True, text=True, check=False)
        for _ in range(2)
    )
    assert (first.returncode, again.returncode) == (0, 0), f"{first.stderr}\n{again.stderr}"
    assert f"InferenceServer is ready at {host.url}; docs at {host.url}/docs\n" in first.stdout
    (key,) = re.findall(r"^is_\w+$", first.stdout, re.MULTILINE)
    assert CERTIFICATE in first.stdout
    assert host.get("/api/models/").status_code == 401
    assert host.get("/api/models/", key).status_code == 200
    assert "is_" not in again.stdout


@pytest.mark.long
def test_an_installation_with_secrets_and_a_certificate_of_its_own_goes_on(tmp_path: Path) -> None:
    require_docker()
    host = make_host(tmp_path)
    shutil.rmtree(host.folder / "traefik")
    make_files(host.folder)
    shutil.copy(host.folder / "traefik/certs/server.crt", host.folder)
    # One of somebody's own: shells, SQL and URLs read some of these characters.
    (host.folder / "secrets/postgres_password").unlink()
    (host.folder / "secrets/postgres_password").write_text('it\'s "$HOME" \\ 100% `mine`; /?@:')
    host.folder.joinpath(".env").write_text("PROXY_DOMAIN=localhost\nCOMPOSE_PROFILES=cpu\nALLOW_PUBLIC_POST_MODEL=1\n")
    host.compose.variables["INFERENCE_SERVER_IMAGE"] = beside_others()["INFERENCE_SERVER_IMAGE"]
    current = (host.folder / "docker-compose.yaml").read_text()
    # The files of Traefik are today's, and need their plugin.
    volume = "- ./traefik/certs:/certs:ro\n"
    old = (Path(__file__).with_name("layouts") / "0.1.0.yaml").read_text()
    assert volume in old
    old = old.replace(volume, f"{volume}      - ./traefik/plugins:/plugins-local:ro\n")
    (host.folder / "docker-compose.yaml").write_text(old)
    try:
        host.compose.run("up", "--detach", "--wait")
        uid, key = host.submit(), host.type(ADMIN_KEY).strip()
        host.output(uid)
        (host.folder / "docker-compose.yaml").write_text(current)
        host.compose.run("up", "--detach", "--wait")
        # With the same trust, under the same key.
        assert host.output(uid) == CONTENT
        assert host.get("/api/tasks/", key).status_code == 200
        assert host.output(host.submit()) == CONTENT
        shown = host.compose.run("exec", "-T", "private-api", "cat", "/run/secrets/service/service_token")
        assert shown == (host.folder / "secrets/service_token").read_text()
    finally:
        host.compose.run("down", "--volumes", "--timeout", "5", check=False)
