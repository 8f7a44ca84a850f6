"""Two containers of the public API in the Compose stack, restarted one after the other under clients that go on.

And the front before them: what one address may hold of it, and for how long.
"""

import json
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from secrets import token_bytes, token_hex

import httpx
import pytest

from tests.doc_pages import section
from tests.e2e.checkout import paste
from tests.e2e.client import DoorClient, door_of
from tests.e2e.compose import Compose, compose_project
from tests.e2e.half_open import KINDS, Address, crowd, encrypted, sent
from tests.e2e.images import echo_image
from tests.e2e.systems import trust
from tests.services import require_docker
from tests.waiting import wait_until
from tests.zips import make_zip, read_zip

AGAIN = (551, 429, 502, 503, 504)
"""As in docs/how-to/without-a-client.md: ask again."""
UP, RESTART = section("docs/operations/install.md", "Two doors side by side").shell
CLIENTS = 6
CROWD = 60
SHARE = 200
HEAD_S = 30
# In a container on the front's network, which has an address of its own.
NEIGHBOUR = """
import http.client, socket, ssl
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
door = http.client.HTTPSConnection("localhost")
door.sock = context.wrap_socket(socket.create_connection(("traefik", 443), 100), server_hostname="localhost")
door.request("GET", "/readyz")
print(door.getresponse().status)
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    require_docker()
    with compose_project(tmp_path_factory.mktemp("stack"), {"CONNECTIONS_PER_ADDRESS": str(SHARE)}) as (compose, _):
        paste(compose.folder, UP, fails=False, **compose.variables)
        yield compose


@pytest.fixture
def door(stack: Compose) -> Iterator[DoorClient]:
    with door_of(stack.url, str(stack.folder / "traefik/certs/server.crt")) as door:
        yield door


def containers(compose: Compose) -> list[str]:
    return compose.run("ps", "--quiet", "public-api").split()


def front(compose: Compose) -> Address:
    """Traefik itself, past the proxy process that Docker uses for ports on its own machine."""
    form = f'{{{{(index .NetworkSettings.Networks "{compose.project}_front").IPAddress}}}}'
    command = ["docker", "inspect", "--format", form, compose.container("traefik")]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip(), 443


def ask_from_another_address(compose: Compose) -> str:
    return compose.run("exec", "-T", "public-api", "python", "-c", NEIGHBOUR).strip()


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


@pytest.mark.parametrize("port", [443, 80])
def test_an_address_takes_its_share_of_the_front_and_leaves_the_rest(stack: Compose, port: int) -> None:
    more = 50
    address = front(stack)[0], port
    with crowd([sent(b"")] * (SHARE + more), address) as silent:
        wait_until(lambda: silent.closed() >= more, lambda: f"{silent.closed()} of {more} were refused")
        assert max(silent.lifetimes) < HEAD_S
        assert silent.closed() == more
        assert ask_from_another_address(stack) == "200"
        # It has no place left itself.
        with pytest.raises(OSError, match=r"reset|EOF"):
            encrypted(b"")(front(stack)) if port == 443 else refuse(address)
        wait_until(lambda: silent.closed() == SHARE + more, lambda: f"{silent.closed()} were closed")
    # And its place again.
    encrypted(b"")(front(stack)).close()


def refuse(address: Address) -> None:
    with sent(b"")(address) as connection:
        if not connection.recv(1):
            raise ConnectionResetError("reset")


def test_what_asks_for_nothing_whole_is_ended_and_others_are_served_meanwhile(stack: Compose) -> None:
    each = SHARE // len(KINDS)
    with crowd([opener for opener in KINDS.values() for _ in range(each)], front(stack)) as hangers_on:
        assert ask_from_another_address(stack) == "200"
        assert hangers_on.closed() < len(KINDS) * each
        wait_until(lambda: hangers_on.closed() == len(KINDS) * each, lambda: f"{hangers_on.closed()} were closed")
    # Nobody was sent away who might still have asked.
    assert min(hangers_on.lifetimes) > HEAD_S - 1


def test_an_upload_may_take_longer_than_a_head(stack: Compose, door: DoorClient) -> None:
    # Side by side: each takes a minute.
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda version: upload_slowly(stack, door, version), ["--http1.1", "--http2"]))


def upload_slowly(stack: Compose, door: DoorClient, version: str) -> None:
    content = token_bytes(100 * 1024)
    source = stack.folder / f"slow{version}.zip"
    source.write_bytes(make_zip({"slow": content}))
    url = f"{door.url}/api/tasks/?human_readable_id={door.add_model(echo_image())}"
    command = ["curl", "--silent", "--show-error", version, "--cacert", str(door.verify), "--limit-rate", "2k"]
    command += ["--header", "Content-Type: application/zip", "--data-binary", f"@{source}", url]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert time.monotonic() - began > HEAD_S
    assert door.result(json.loads(done.stdout)) == {"slow": content}


def test_nobody_names_an_address_that_is_not_theirs(stack: Compose) -> None:
    liar = sent(b"PROXY TCP4 192.0.2.66 192.0.2.1 1 443\r\n")(front(stack))
    with liar, pytest.raises(OSError, match=r"EOF|WRONG_VERSION|reset"):
        ssl.create_default_context().wrap_socket(liar, server_hostname="localhost")
