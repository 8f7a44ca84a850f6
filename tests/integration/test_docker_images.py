"""Images and registries: what the Engine's words about a pull mean, against registries of our own."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import docker
import pytest

from job_consumer import docker_images
from job_consumer.docker_images import PullFault, pull_fault
from job_consumer.engine import EngineUnavailable, ImageNotFound
from tests.integration.engine_bench import Bench, docker_bench
from tests.services import require_docker


@pytest.fixture
def client() -> Iterator[docker.APIClient]:
    require_docker()
    with closing(docker.APIClient(version="auto")) as made:
        yield made


@pytest.fixture
def bench(tmp_path: Path, client: docker.APIClient) -> Iterator[Bench]:
    with docker_bench(tmp_path / "work", client) as made:
        yield made


def test_an_image_that_is_there_is_not_pulled(bench: Bench) -> None:
    bench.engine.ensure_image("busybox:1.37", "missing")
    bench.engine.ensure_image("busybox:1.37", "never")


def test_an_absent_image_that_must_not_be_pulled_is_not_found(bench: Bench) -> None:
    with pytest.raises(ImageNotFound, match="not on this host and its pull policy is never"):
        bench.engine.ensure_image("127.0.0.1:1/absent:1", "never")


@pytest.mark.parametrize("image", ["Not A Name", "UPPER/case", "process:run.sh"])
def test_what_is_no_image_name_is_not_found(bench: Bench, image: str) -> None:
    with pytest.raises(ImageNotFound, match="name"):
        bench.engine.ensure_image(image, "missing")


def test_an_image_that_its_registry_does_not_have_is_not_found_at_once(bench: Bench) -> None:
    with registry(404, {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}) as (port, requests):
        with pytest.raises(ImageNotFound, match="does not give"):
            bench.engine.ensure_image(f"127.0.0.1:{port}/absent:1", "missing")
        assert sum("manifests" in path for path in requests) <= 2


def test_a_registry_that_refuses_access_means_not_found(bench: Bench) -> None:
    body = {"errors": [{"code": "DENIED", "message": "requested access to the resource is denied"}]}
    with registry(403, body) as (port, _), pytest.raises(ImageNotFound, match="denied"):
        bench.engine.ensure_image(f"127.0.0.1:{port}/secret:1", "missing")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_registry_in_trouble_is_no_fault_of_the_image(bench: Bench, status: int) -> None:
    body = {"errors": [{"code": "TOOMANYREQUESTS", "message": "pull rate limit"}]} if status == 429 else {}
    with registry(status, body) as (port, _), pytest.raises(EngineUnavailable, match="pulling the image"):
        bench.engine.ensure_image(f"127.0.0.1:{port}/some:1", "missing")


@pytest.mark.parametrize(("policy", "image"), [("missing", "127.0.0.1:1/absent:1"), ("always", "localhost:1/absent:1")])
def test_a_registry_that_cannot_be_reached_is_tried_three_times(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, policy: str, image: str
) -> None:
    monkeypatch.setattr(docker_images, "PAUSES_S", (0.01, 0.01))
    tries = count_calls(monkeypatch, docker.APIClient, "pull")
    with pytest.raises(ImageNotFound, match="is not on this host and no registry could be reached"):
        bench.engine.ensure_image(image, policy)
    assert len(tries) == 3


def test_a_present_image_that_must_be_pulled_and_cannot_is_not_run(
    bench: Bench, client: docker.APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_images, "PAUSES_S", (0.01, 0.01))
    client.tag("busybox:1.37", "127.0.0.1:1/stale", "1")
    try:
        with pytest.raises(ImageNotFound, match="must be pulled for each run and no registry could be reached"):
            bench.engine.ensure_image("127.0.0.1:1/stale:1", "always")
    finally:
        client.remove_image("127.0.0.1:1/stale:1")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("manifest for x:1 not found: manifest unknown: manifest unknown", PullFault.ABSENT),
        ("pull access denied for x, repository does not exist or may require 'docker login'", PullFault.ABSENT),
        ("no matching manifest for linux/arm64 in the manifest list entries", PullFault.ABSENT),
        ("toomanyrequests: access denied: You have reached your pull rate limit", PullFault.OURS),
        ("unexpected status from HEAD request to https://r/v2/x/manifests/1: 503 Service Unavailable", PullFault.OURS),
        ("received unexpected HTTP status: 504 Gateway Timeout", PullFault.OURS),
        ("failed to register layer: no space left on device", PullFault.OURS),
        ('Get "https://r/v2/": dial tcp: lookup r on 127.0.0.53:53: no such host', PullFault.UNREACHABLE),
        ('Get "https://r/v2/": net/http: TLS handshake timeout', PullFault.UNREACHABLE),
        ('Get "https://r/v2/": context deadline exceeded', PullFault.UNREACHABLE),
    ],
)
def test_what_a_failed_pull_says_of_the_image(text: str, fault: PullFault) -> None:
    assert pull_fault(text) is fault


@contextmanager
def registry(status: int, body: dict[str, Any]) -> Iterator[tuple[int, list[str]]]:
    """A registry that gives this answer to every question about an image. The Engine talks HTTP to 127.0.0.0/8."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            payload = b"{}" if self.path == "/v2/" else json.dumps(body).encode()
            self.send_response(200 if self.path == "/v2/" else status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(payload)

        do_HEAD = do_GET  # noqa: N815 - the name the base class looks for

        def log_message(self, *_: Any) -> None:
            """Keep the test's output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port, requests
        finally:
            server.shutdown()
            thread.join()


def count_calls(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> list[None]:
    """One entry for each call of a method, which still does what it does."""
    calls: list[None] = []
    real: Callable[..., Any] = getattr(owner, name)

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, counted)
    return calls
