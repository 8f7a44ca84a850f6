"""The filter before the Docker Engine, attacked as by a consumer that was taken over."""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import docker
import pytest

from job_consumer.engines import EngineUnavailable
from job_consumer.engines.docker.engine import DockerEngine
from job_consumer.engines.docker.profile import container_config
from tests.engine_attacks import CALLS, CREATIONS, attack
from tests.engine_client import engine_client
from tests.integration.engine_harness import Harness, docker_harness
from tests.integration.filtered_engine import run_filter
from tests.services import require_docker
from tests.waiting import wait_until

MIB = 1024**2
CREATE = b"POST /v1.41/containers/create?name=is-a-1 HTTP/1.1\r\nHost: d\r\n"
LOOKS = 20
"""Looks in a row that find no room: the filter has read what it will."""


class Attacker:
    """A client of the filter that says what it likes."""

    def __init__(self, url: str) -> None:
        self._path = url.removeprefix("unix://")

    def connect(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        made.settimeout(60)
        made.connect(self._path)
        return made

    def ask(self, method: str, target: str, body: bytes = b"") -> tuple[int, Any]:
        """The status and the JSON of the answer."""
        connection = HTTPConnection("docker")
        connection.sock = self.connect()
        with closing(connection):
            connection.request(method, target, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None


@pytest.fixture
def client() -> Iterator[docker.APIClient]:
    require_docker()
    with closing(engine_client()) as made:
        yield made


@pytest.fixture
def filtered(tmp_path: Path, client: docker.APIClient) -> Iterator[tuple[Harness, Attacker]]:
    with ExitStack() as stack:
        url = stack.enter_context(run_filter(tmp_path / "work"))
        harness = stack.enter_context(docker_harness(tmp_path / "work", client, base_url=url))
        yield harness, Attacker(url)


def body_of(harness: Harness) -> tuple[str, dict[str, Any]]:
    """The name and the body of a run that is let through."""
    spec = harness.spec("true")
    assert isinstance(harness.engine, DockerEngine)
    return spec.key.name, container_config(spec, harness.engine._describe_host())


@pytest.mark.parametrize("name", CREATIONS)
def test_a_container_with_more_rights_is_not_made(
    filtered: tuple[Harness, Attacker], client: docker.APIClient, name: str
) -> None:
    harness, attacker = filtered
    run, body = body_of(harness)
    changed = attack(name, body, str(harness.work.root))
    status, answer = attacker.ask("POST", f"/v1.41/containers/create?name={run}", json.dumps(changed).encode())
    assert (status, answer["message"].split(":")[0]) == (403, "refused by the filter before the Docker Engine")
    assert client.containers(all=True, filters={"name": run}) == []
    assert attacker.ask("POST", f"/v1.41/containers/create?name={run}", json.dumps(body).encode())[0] == 201


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_no_consumer_makes_reaches_no_engine(filtered: tuple[Harness, Attacker], name: str) -> None:
    harness, attacker = filtered
    method, target = CALLS[name]
    status, answer = attacker.ask(method, target.replace("{run}", harness.spec("true").key.name.removeprefix("is-")))
    assert (status, answer["message"].split(":")[0]) == (403, "refused by the filter before the Docker Engine")


def test_a_folder_that_became_a_link_is_not_mounted(filtered: tuple[Harness, Attacker]) -> None:
    harness, attacker = filtered
    run, body = body_of(harness)
    output = Path(body["HostConfig"]["Mounts"][1]["VolumeOptions"]["DriverConfig"]["Options"]["device"])
    assert attacker.ask("POST", f"/v1.41/containers/create?name={run}", json.dumps(body).encode())[0] == 201
    output.rename(output.with_name("aside"))
    output.symlink_to("/etc")
    status, answer = attacker.ask("POST", f"/v1.41/containers/{run}/start")
    assert (status, "reached by a link" in answer["message"]) == (403, True)
    status, answer = attacker.ask("POST", f"/v1.41/containers/create?name={run}x", json.dumps(body).encode())
    assert (status, "reached by a link" in answer["message"]) == (403, True)


def test_a_second_call_on_a_connection_is_dropped(filtered: tuple[Harness, Attacker], client: docker.APIClient) -> None:
    harness, attacker = filtered
    run, body = body_of(harness)
    smuggled = json.dumps(body | {"HostConfig": {"Privileged": True}}).encode()
    second = f"POST /v1.41/containers/create?name={run} HTTP/1.1\r\nHost: d\r\nContent-Length: {len(smuggled)}\r\n\r\n"
    with closing(attacker.connect()) as connection:
        connection.sendall(b"GET /v1.41/_ping HTTP/1.1\r\nHost: d\r\n\r\n" + second.encode() + smuggled)
        received = b""
        while piece := connection.recv(65536):
            received += piece
    assert received.count(b"HTTP/1.1 ") == 1
    assert client.containers(all=True, filters={"name": run}) == []


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: d\r\nX: " + bytes(200_000),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        CREATE + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n",
        CREATE + b"Content-Length: 9999999\r\n\r\n" + b" " * (2 * MIB),
    ],
    ids=["long-head", "tls", "two-lengths", "long-body"],
)
def test_what_is_no_call_is_refused(filtered: tuple[Harness, Attacker], sent: bytes) -> None:
    _, attacker = filtered
    with closing(attacker.connect()) as connection:
        try:
            connection.sendall(sent)
            answer = connection.recv(65536)
        except ConnectionError:
            # It has hung up before all was sent.
            answer = b"HTTP/1.1 403"
    assert answer.startswith(b"HTTP/1.1 403")
    assert attacker.ask("GET", "/v1.41/volumes?filters=%7B%22label%22%3A%5B%22inference-server.kept%22%5D%7D")[0] == 200


def test_an_engine_that_is_away_is_told_as_before(tmp_path: Path) -> None:
    with run_filter(tmp_path, engine_socket=tmp_path / "nowhere.sock") as url:
        engine = DockerEngine(work_dir=tmp_path, work_volume=None, base_url=url)
        with pytest.raises(EngineUnavailable, match="no Docker Engine answers"):
            engine.check()
        engine.close()


def test_a_client_that_leaves_ends_its_call_at_the_engine(tmp_path: Path) -> None:
    listener = socket.create_server(str(tmp_path / "engine.sock"), family=socket.AF_UNIX)
    listener.settimeout(60)
    with closing(listener), run_filter(tmp_path, engine_socket=tmp_path / "engine.sock") as url:
        with closing(Attacker(url).connect()) as connection:
            connection.sendall(b"GET /v1.41/info HTTP/1.1\r\nHost: d\r\n\r\n")
            engine, _ = listener.accept()
            engine.settimeout(60)
            assert engine.recv(65536).startswith(b"GET /v1.41/info HTTP/1.1\r\n")
        with closing(engine):
            assert engine.recv(65536) == b""


def test_what_the_engine_sends_is_held_back_by_a_client_that_does_not_read(tmp_path: Path) -> None:
    """Nothing of a response is stored: the Engine can send no more than the sockets hold."""
    listener = socket.create_server(str(tmp_path / "engine.sock"), family=socket.AF_UNIX)
    listener.settimeout(60)
    with (
        closing(listener),
        run_filter(tmp_path, engine_socket=tmp_path / "engine.sock") as url,
        closing(Attacker(url).connect()) as connection,
    ):
        connection.sendall(b"GET /v1.41/info HTTP/1.1\r\nHost: d\r\n\r\n")
        engine, _ = listener.accept()
        with closing(engine):
            engine.setblocking(False)
            sent = full = 0

            def stays_full() -> bool:
                nonlocal sent, full
                try:
                    sent += engine.send(bytes(65536))
                    full = 0
                except BlockingIOError:
                    full += 1
                assert sent < 64 * MIB
                return full >= LOOKS

            wait_until(stays_full, "the Engine has to wait")
