"""Two containers of the public API in the Compose stack, restarted one after the other under clients that go on."""

import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from secrets import token_hex

import httpx
import pytest

from tests.doc_pages import section
from tests.e2e.checkout import paste
from tests.e2e.client import DoorClient, door_of
from tests.e2e.compose import Compose, compose_project
from tests.e2e.images import echo_image
from tests.e2e.systems import trust
from tests.services import require_docker
from tests.zips import make_zip, read_zip

AGAIN = (551, 429, 502, 503, 504)
"""As in docs/how-to/without-a-client.md: ask again."""
UP, RESTART = section("docs/operations/install.md", "Two doors side by side").shell
CLIENTS = 6
CROWD = 60


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    require_docker()
    with compose_project(tmp_path_factory.mktemp("stack")) as (compose, _):
        paste(compose.folder, UP, fails=False, **compose.variables)
        yield compose


@pytest.fixture
def door(stack: Compose) -> Iterator[DoorClient]:
    with door_of(stack.url, str(stack.folder / "traefik/certs/server.crt")) as door:
        yield door


def containers(compose: Compose) -> list[str]:
    return compose.run("ps", "--quiet", "public-api").split()


def received_packets(container: str) -> int:
    """By all its networks together."""
    devices = subprocess.run(
        ["docker", "exec", container, "cat", "/proc/net/dev"], check=True, capture_output=True, text=True
    ).stdout
    return sum(int(line.split()[2]) for line in devices.splitlines() if line.strip().startswith("eth"))


def test_both_answer(stack: Compose, door: DoorClient) -> None:
    before = {container: received_packets(container) for container in containers(stack)}
    assert len(before) == 2

    def ask(_: int) -> int:
        return httpx.get(f"{door.url}/readyz", verify=context, timeout=300).status_code

    context = trust(door.verify)
    with ThreadPoolExecutor(CROWD) as pool:
        assert set(pool.map(ask, range(CROWD * 5))) == {200}
    # Their probes and heartbeats take a few.
    gained = {container: received_packets(container) - count for container, count in before.items()}
    assert min(gained.values()) > CROWD, gained


def test_clients_that_ask_again_lose_nothing_while_one_after_the_other_is_restarted(
    stack: Compose, door: DoorClient
) -> None:
    model, stopped, seen = door.add_model(echo_image()), threading.Event(), Counter[int | str]()
    context = trust(door.verify)

    def repeat(method: str, path: str, **request: object) -> httpx.Response:
        """Until there is an answer to it, each time on a connection of its own, as scripts do."""
        while True:
            try:
                answer = httpx.request(method, f"{door.url}{path}", verify=context, timeout=300, **request)  # type: ignore[arg-type]
            except httpx.TransportError as error:
                seen[type(error).__name__] += 1
                time.sleep(1)
                continue
            seen[answer.status_code] += 1
            if answer.status_code not in AGAIN:
                return answer
            time.sleep(0.2 if answer.status_code == 551 else 1)

    def work() -> int:
        done = 0
        while not stopped.is_set() or not done:
            content = token_hex(8).encode()
            headers = {"Content-Type": "application/zip", "Idempotency-Key": token_hex(8)}
            submitted = repeat(
                "POST",
                f"/api/tasks/?human_readable_id={model}",
                content=make_zip({"n": content}),
                headers=headers,
            )
            assert submitted.status_code == 200, submitted.text
            ended = repeat("GET", f"/api/tasks/{submitted.json()}")
            assert ended.status_code == 200, ended.text
            assert read_zip(ended.content) == {"n": content}
            done += 1
        return done

    with ThreadPoolExecutor(CLIENTS) as pool:
        working = [pool.submit(work) for _ in range(CLIENTS)]
        try:
            paste(stack.folder, RESTART, fails=False, **stack.variables)
        finally:
            stopped.set()
        done = [each.result() for each in working]
    assert min(done) >= 1
    # Traefik was there all the time, and one of the doors.
    assert not [error for error in seen if isinstance(error, str)], seen
