"""Logins for private registries: each pull shows those that the file has then, and nothing tells them."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from job_consumer.engines import EngineUnavailable
from job_consumer.engines.docker.engine import DockerEngine

REGISTRY = "registry.example.org:5000"
IMAGE = f"{REGISTRY}/lab/segment:1"
PASSWORD = "a-password-of-the-tests"


class EngineApi:
    """As much of an Engine's HTTP API as a pull meets; notes which login each request shows."""

    def __init__(self) -> None:
        self.url = ""
        self.logins: list[dict[str, Any] | None] = []

    def note(self, header: str | None) -> None:
        self.logins.append(None if header is None else json.loads(base64.urlsafe_b64decode(header)))


@pytest.fixture
def engine_api() -> Iterator[EngineApi]:
    api = EngineApi()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/version":
                self._answer(200, {"ApiVersion": "1.41"})
            elif "/distribution/" in self.path:
                api.note(self.headers["X-Registry-Auth"])
                self._answer(200, {"Descriptor": {"digest": f"sha256:{'0' * 64}"}})
            else:
                self._answer(404, {"message": f"No such image: {IMAGE}"})

        def do_POST(self) -> None:
            api.note(self.headers["X-Registry-Auth"])
            self._answer(200, {"status": "Status: Downloaded"})

        def _answer(self, status: int, body: dict[str, Any]) -> None:
            encoded = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        def log_message(self, *_: Any) -> None:
            """Keep the test's output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        api.url = f"tcp://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield api
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the logins are to be; this process's user has none."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    return tmp_path / "registry" / "config.json"


@pytest.fixture
def engine(engine_api: EngineApi, file: Path, tmp_path: Path) -> Iterator[DockerEngine]:
    made = DockerEngine(work_dir=tmp_path, work_volume=None, base_url=engine_api.url, registry_auth_file=file)
    yield made
    made.close()


def log_in(file: Path, password: str, registry: str = REGISTRY) -> None:
    """As `docker login` does."""
    file.parent.mkdir(exist_ok=True)
    auth = base64.b64encode(f"lab:{password}".encode()).decode()
    file.write_text(json.dumps({"auths": {registry: {"auth": auth}}}))


def shown(login: dict[str, Any] | None) -> tuple[str, str] | None:
    return None if not login else (login["username"], login["password"])


def test_a_pull_shows_the_login_that_the_file_has_then(engine: DockerEngine, engine_api: EngineApi, file: Path) -> None:
    engine.ensure_image(IMAGE, "missing")
    log_in(file, PASSWORD)
    engine.ensure_image(IMAGE, "missing")
    log_in(file, "the-next-one")
    engine.ensure_image(IMAGE, "missing")
    log_in(file, PASSWORD, registry="another.example.org")
    engine.ensure_image(IMAGE, "missing")
    assert [shown(login) for login in engine_api.logins] == [None, ("lab", PASSWORD), ("lab", "the-next-one"), None]


def test_a_lookup_shows_the_same(engine: DockerEngine, engine_api: EngineApi, file: Path) -> None:
    log_in(file, PASSWORD)
    assert engine.look_up_image(IMAGE, "missing")[0] is False
    assert [shown(login) for login in engine_api.logins] == [("lab", PASSWORD)]


def test_without_the_file_the_login_of_the_user_counts(
    engine: DockerEngine, engine_api: EngineApi, tmp_path: Path
) -> None:
    log_in(tmp_path / ".docker" / "config.json", PASSWORD)
    engine.ensure_image(IMAGE, "missing")
    assert [shown(login) for login in engine_api.logins] == [("lab", PASSWORD)]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (f'{{"auths": "{PASSWORD}"', "not what `docker login` writes"),
        (f'["{PASSWORD}"]', "not what `docker login` writes"),
        (json.dumps({"auths": {REGISTRY: {"auth": PASSWORD}}}), "an entry of it is no login"),
        (json.dumps({"auths": {REGISTRY: PASSWORD}}), "an entry of it is no login"),
        (json.dumps({"credsStore": "nowhere-at-all"}), "not here: docker-credential-nowhere-at-all"),
        (json.dumps({"credHelpers": {REGISTRY: "nowhere-at-all"}}), "not here: docker-credential-nowhere-at-all"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_and_not_told(
    engine: DockerEngine, engine_api: EngineApi, file: Path, content: str, says: str
) -> None:
    file.parent.mkdir()
    file.write_text(content)
    with pytest.raises(EngineUnavailable, match="REGISTRY_AUTH_FILE") as caught:
        engine.ensure_image(IMAGE, "missing")
    assert says in caught.value.detail
    assert PASSWORD not in str(caught.value)
    assert engine_api.logins == []


def test_the_log_at_its_most_talkative_tells_no_password(
    engine: DockerEngine, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    log_in(file, PASSWORD)
    engine.ensure_image(IMAGE, "missing")
    engine.look_up_image(IMAGE, "missing")
    encoded = base64.b64encode(f"lab:{PASSWORD}".encode()).decode()
    assert "auth" in caplog.text
    assert PASSWORD not in caplog.text
    assert encoded not in caplog.text
