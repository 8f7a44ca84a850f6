"""Images and registries: what the Engine's words about a pull mean, against registries of our own."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import docker
import pytest

from job_consumer.engines import EngineUnavailable, ImageNotFound
from job_consumer.engines.docker import images as docker_images
from tests.engine_client import engine_client
from tests.integration.engine_harness import Harness, build_image, docker_harness
from tests.integration.image_registry import Registry, serve_slow_image
from tests.services import require_docker
from tests.waiting import PATIENCE_S, wait_until


@pytest.fixture
def client() -> Iterator[docker.APIClient]:
    require_docker()
    with closing(engine_client()) as made:
        yield made


@pytest.fixture
def harness(tmp_path: Path, client: docker.APIClient) -> Iterator[Harness]:
    with docker_harness(tmp_path / "work", client) as made:
        yield made


def test_an_image_that_is_there_is_not_pulled(harness: Harness) -> None:
    harness.engine.ensure_image("busybox:1.37", "missing")
    harness.engine.ensure_image("busybox:1.37", "never")


def test_an_absent_image_that_must_not_be_pulled_is_not_found(harness: Harness) -> None:
    with pytest.raises(ImageNotFound, match="not on this host and its pull policy is never"):
        harness.engine.ensure_image("127.0.0.1:1/absent:1", "never")


@pytest.mark.parametrize("image", ["Not A Name", "localhost/UPPER", "process:run.sh"])
def test_what_is_no_image_name_is_not_found(harness: Harness, image: str) -> None:
    with pytest.raises(ImageNotFound, match="name"):
        harness.engine.ensure_image(image, "missing")


def test_an_image_that_its_registry_does_not_have_is_not_found_at_once(harness: Harness) -> None:
    with registry(404, {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}) as (port, requests):
        with pytest.raises(ImageNotFound, match="does not give"):
            harness.engine.ensure_image(f"127.0.0.1:{port}/absent:1", "missing")
        assert sum("manifests" in path for path in requests) <= 2


def test_a_registry_that_refuses_access_means_not_found(harness: Harness) -> None:
    body = {"errors": [{"code": "DENIED", "message": "requested access to the resource is denied"}]}
    with (
        registry(403, body) as (port, _),
        pytest.raises(ImageNotFound, match="a login that this consumer does not have"),
    ):
        harness.engine.ensure_image(f"127.0.0.1:{port}/secret:1", "missing")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_registry_in_trouble_is_no_fault_of_the_image(harness: Harness, status: int) -> None:
    body = {"errors": [{"code": "TOOMANYREQUESTS", "message": "pull rate limit"}]} if status == 429 else {}
    with registry(status, body) as (port, _), pytest.raises(EngineUnavailable, match="pulling the image"):
        harness.engine.ensure_image(f"127.0.0.1:{port}/some:1", "missing")


@pytest.mark.parametrize(("policy", "image"), [("missing", "127.0.0.1:1/absent:1"), ("always", "localhost:1/absent:1")])
def test_a_registry_that_cannot_be_reached_is_tried_three_times(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, policy: str, image: str
) -> None:
    monkeypatch.setattr(docker_images, "PAUSES_S", (0.01, 0.01))
    tries = count_calls(monkeypatch, docker.APIClient, "pull")
    with pytest.raises(ImageNotFound, match="is not on this host and no registry could be reached"):
        harness.engine.ensure_image(image, policy)
    assert len(tries) == 3


def test_an_image_that_exists_outlasts_an_absent_registry(
    harness: Harness, client: docker.APIClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_images, "PAUSES_S", (0.01, 0.01))
    with Registry(tmp_path / "registry") as registry:
        image = f"{registry.address}/lab/kept:1"
        client.tag("busybox:1.37", f"{registry.address}/lab/kept", "1")
        try:
            assert "error" not in client.push(image)
            harness.engine.ensure_image(image, "always")
            registry.stop()
            # It is here, but perhaps not the newest: it is not run in place of that one.
            with pytest.raises(EngineUnavailable, match="must be pulled for each run and no registry could be reached"):
                harness.engine.ensure_image(image, "always")
            harness.engine.ensure_image(image, "missing")
            client.remove_image(image)
            for policy in ("missing", "always"):
                with pytest.raises(EngineUnavailable, match="which ran before, is not on this host and no registry"):
                    harness.engine.ensure_image(image, policy, has_run=True)
            with pytest.raises(ImageNotFound, match="is not on this host and no registry could be reached"):
                harness.engine.ensure_image(image, "missing")
            registry.start()
            harness.engine.ensure_image(image, "missing", has_run=True)
            # What a registry answers is believed, whatever ran before.
            with pytest.raises(ImageNotFound, match="does not give"):
                harness.engine.ensure_image(f"{registry.address}/lab/gone:1", "missing", has_run=True)
        finally:
            client.remove_image(image, force=True)


def test_what_ran_is_named_by_its_digest_where_a_registry_has_it(
    harness: Harness, client: docker.APIClient, tmp_path: Path
) -> None:
    with Registry(tmp_path / "registry") as registry:
        names = [f"{registry.address}/lab/{name}" for name in ("first", "second")]
        try:
            for name in names:
                client.tag("busybox:1.37", name, "1")
                assert "error" not in client.push(f"{name}:1")
            local = build_image(client, "LABEL tests=ran-image")
            ran = []
            for image in (f"{names[0]}:1", f"{names[1]}:1", local):
                spec = harness.spec("true", image=image)
                harness.engine.start(spec)
                ran.append(harness.engine.ran_image(spec.key) or "")
        finally:
            for name in names:
                client.remove_image(f"{name}:1", force=True)
    digest = ran[0].partition("@")[2]
    assert ran == [f"{name}@{digest}" for name in names] + [client.inspect_image(local)["Id"]]
    assert digest.startswith("sha256:")


def test_a_pull_says_how_far_it_is(harness: Harness, client: docker.APIClient) -> None:
    go_on, seen = Event(), list[int]()
    with serve_slow_image(go_on) as image:
        pulling = Thread(target=harness.engine.ensure_image, args=(image, "missing", seen.append))
        pulling.start()
        try:
            wait_until(lambda: any(seen), lambda: f"a percent: {seen}")
            # Half of its only layer is here, and nothing is unpacked.
            assert max(seen) <= 25
        finally:
            go_on.set()
            pulling.join(PATIENCE_S)
        assert seen == sorted(seen)
        assert seen[-1] == 100
        # Of an image that is there nothing is pulled.
        del seen[:]
        harness.engine.ensure_image(image, "missing", seen.append)
        assert seen == []
        client.remove_image(image)


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
