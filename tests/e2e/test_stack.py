"""The Compose stack as an operator treats it: killed parts, resets, and what can be seen from outside."""

import asyncio
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.browser import require_chromium
from tests.e2e.by_mouse import do_main_job
from tests.e2e.client import DoorClient, door_of
from tests.e2e.compose import ROOT, Compose, build_image, compose_project
from tests.e2e.images import UNTIL_TOLD, echo_image, script_image
from tests.e2e.systems import trust
from tests.services import require_docker
from tests.waiting import wait_until
from tests.zips import make_zip, read_zip

SERVICES = (
    *("postgres", "rabbitmq", "private-api", "public-api", "grpc-gateway", "traefik"),
    *("engine-filter", "job-consumer"),
)
UNTIL_LET_GO = "until [ -e /tmp/go ]; do sleep 0.1; done; echo x > /output/x"
TASKS = 50
CROWD = 500
"""A hospital's clients: so many wait for an answer, and as many ask once a second."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Compose, str]]:
    require_docker()
    folder = tmp_path_factory.mktemp("stack")
    with compose_project(folder, {"STORAGE_DIR": str(folder / "storage")}) as (compose, url):
        in_folder(folder, "install -d -o 10001 -g 10001 -m 0700 storage/data")
        compose.run("up", "--detach", "--wait")
        yield compose, url
        compose.run("down", "--volumes")
        in_folder(folder, "rm -r storage")


def in_folder(folder: Path, command: str) -> None:
    """As root, which these tests need not be."""
    mounted = ("--volume", f"{folder}:{folder}", "--workdir", str(folder))
    subprocess.run(["docker", "run", "--rm", *mounted, "busybox:1.37", *command.split()], check=True)


@pytest.fixture
def compose(stack: tuple[Compose, str]) -> Compose:
    return stack[0]


@pytest.fixture
def door(stack: tuple[Compose, str]) -> Iterator[DoorClient]:
    compose, url = stack
    with door_of(url, str(compose.folder / "traefik/certs/server.crt")) as door:
        yield door


def submit_numbers(door: DoorClient, count: int) -> dict[str, bytes]:
    """Tasks by uid, each with a number of its own to echo."""
    model = door.add_model(echo_image())
    return {door.submit(model, {"n": str(n).encode()}): str(n).encode() for n in range(count)}


def test_the_main_job_is_done_by_mouse_behind_tls(door: DoorClient, tmp_path: Path) -> None:
    require_chromium()
    log, output = do_main_job(
        door.url,
        tmp_path,
        image=script_image("cat /model/greeting; wc -w < /input/text.txt > /output/words"),
        model_zip=make_zip({"greeting": b"counting\n"}),
        text=b"a zip in, a zip out\n",
    )
    assert "counting" in log
    assert read_zip(output.read_bytes()) == {"words": b"6\n"}


# `make test` has the operator's own test of a stack, which kills services under its tasks as well.
@pytest.mark.long
def test_every_service_killed_in_turn_costs_no_task(compose: Compose, door: DoorClient) -> None:
    tasks = submit_numbers(door, TASKS)
    for service in SERVICES:
        compose.run("kill", "--signal", "KILL", service)
        compose.run("up", "--detach", "--wait")
    assert {uid: door.result(uid)["n"] for uid in tasks} == tasks
    # Finished once: what ran again after a kill was refused its commit.
    assert {door.status(uid)["status"] for uid in tasks} == {"finished"}


def test_a_run_goes_on_when_the_filter_before_the_engine_dies(compose: Compose, door: DoorClient) -> None:
    lines = [f"line {number}" for number in range(20)]
    script = "".join(f"echo {line}; sleep 1; " for line in lines) + "echo done > /output/n"
    uid = door.submit(door.add_model(script_image(script)), {"i": b""})
    door.wait_status(uid, "running")
    (run,) = running_tasks(compose)
    compose.run("kill", "--signal", "KILL", "engine-filter")
    compose.run("up", "--detach", "--wait")
    assert running_tasks(compose) == [run]
    assert door.result(uid)["n"] == b"done\n"
    assert door.status(uid)["attempt"] == 1
    assert door.http.get(f"/api/tasks/{uid}/logs").text.splitlines() == lines


def test_who_polls_while_the_door_is_replaced_waits_a_moment(compose: Compose, door: DoorClient) -> None:
    (uid,) = submit_numbers(door, 1)
    door.ended(uid)
    seen = Counter[int]()
    stopped, context = threading.Event(), trust(door.verify)

    def poll() -> None:
        while not stopped.is_set():
            # On a connection of its own, as scripts do.
            answer = httpx.get(f"{door.url}/api/tasks/{uid}/status", verify=context, timeout=300)
            seen[answer.status_code] += 1

    with ThreadPoolExecutor(4) as pool:
        polls = [pool.submit(poll) for _ in range(4)]
        compose.run("up", "--detach", "--wait", "--force-recreate", "--no-deps", "public-api")
        stopped.set()
    assert not [failed for failed in polls if failed.exception()]
    assert set(seen) == {200}, seen


# In `make test` the restarts of tests/e2e/test_scenarios.py stand for it.
@pytest.mark.long
def test_down_and_up_keeps_tasks_in_every_state(compose: Compose, door: DoorClient) -> None:
    echo, fails = door.add_model(echo_image()), door.add_model(script_image("exit 3"))
    finished, failed = door.submit(echo, {"a": b"kept"}), door.submit(fails, {"a": b""})
    door.ended(finished)
    door.ended(failed)
    # However long a busy machine takes for an upgrade, it runs on until it is let go.
    running = door.submit(door.add_model(script_image(UNTIL_LET_GO)), {"a": b""})
    queued = door.submit(echo, {"b": b"later"})
    cancelled = door.submit(echo, {"c": b""})
    door.http.post(f"/api/tasks/{cancelled}/cancel")
    door.wait_status(running, "running")
    # An upgrade replaces every service of ours.
    before = compose.container("job-consumer"), running_tasks(compose)
    compose.variables["LOG_LEVEL"] = "WARNING"
    compose.run("up", "--detach", "--wait")
    del compose.variables["LOG_LEVEL"]
    assert compose.container("job-consumer") != before[0]
    assert running_tasks(compose) == before[1]
    compose.run("down")
    assert not running_tasks(compose)
    compose.run("up", "--detach", "--wait")
    assert door.result(finished) == {"a": b"kept"}
    assert door.ended(failed).json()["exit_code"] == 3
    assert door.status(cancelled)["status"] == "cancelled"
    door.wait_status(running, "running")
    (container,) = running_tasks(compose)
    subprocess.run(["docker", "exec", container, "touch", "/tmp/go"], check=True)
    assert door.result(running) == {"x": b"x\n"}
    assert door.status(running)["attempt"] == 2
    assert door.result(queued) == {"b": b"later"}


def test_a_volume_prune_while_it_is_down_loses_nothing_that_is_bound_to_storage(
    compose: Compose, door: DoorClient
) -> None:
    (uid,) = submit_numbers(door, 1)
    door.ended(uid)
    compose.run("down")
    # What `docker volume prune` does before Engine 23, and with --all since; here to this project's volumes alone.
    ours = ("--filter", f"label=com.docker.compose.project={compose.project}")
    found = subprocess.run(["docker", "volume", "ls", "--quiet", *ours], check=True, capture_output=True, text=True)
    volumes = found.stdout.split()
    assert f"{compose.project}_work" in volumes
    subprocess.run(["docker", "volume", "rm", *volumes], check=True, capture_output=True)
    compose.run("up", "--detach", "--wait")
    assert door.result(uid) == {"n": b"0"}


def test_a_storage_folder_that_belongs_to_somebody_else_is_told(tmp_path: Path) -> None:
    require_docker()
    # As Docker makes one that is missing.
    secret = dict.fromkeys(("SERVICE_TOKEN", "POSTGRES_PASSWORD", "RABBIT_PASSWORD"), "0123456789abcdef" * 2)
    variables = [part for name, value in secret.items() for part in ("--env", f"{name}={value}")]
    folder = ("--volume", f"{tmp_path}/data:/data", "--env", "DATA_DIR=/data")
    try:
        command = ["docker", "run", "--rm", *variables, *folder, build_image(), "python", "-m", "private_api"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        in_folder(tmp_path, "rm -r data")
    assert (done.returncode, done.stderr) == (
        2,
        "private-api cannot start:\nDATA_DIR: /data belongs to user 0, and user 10001 may not write to it; "
        "run chown 10001 /data\n",
    )


def test_only_the_two_ports_of_the_front_answer(compose: Compose, door: DoorClient) -> None:
    published = set()
    for service in SERVICES:
        ports = inspect(compose, service)["NetworkSettings"]["Ports"] or {}
        published |= {(service, port) for port, bindings in ports.items() if bindings}
    assert published == {("traefik", "80/tcp"), ("traefik", "443/tcp")}
    parts = urlsplit(door.url)
    for port in (5432, 5672, 8000, 8001, 8082, 15672):
        if port_is_docker(port, compose):
            raise AssertionError(f"port {port} of the host leads into a container")
    assert socket.create_connection((parts.hostname or "", parts.port or 443), 5).close() is None


def test_http_redirects_to_https_and_old_tls_is_refused(compose: Compose, door: DoorClient) -> None:
    http_port = int(compose.variables["HTTP_PORT"])
    with socket.create_connection(("localhost", http_port), 5) as plain:
        plain.sendall(b"GET /docs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert f"\r\nLocation: {door.url}/docs\r\n".encode() in plain.recv(4096)
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    parts = urlsplit(door.url)
    with socket.create_connection((parts.hostname or "", parts.port or 443), 5) as raw, pytest.raises(ssl.SSLError):
        old.wrap_socket(raw, server_hostname=parts.hostname)


@pytest.mark.long
def test_a_crowd_behind_one_address_is_served(door: DoorClient) -> None:
    uid = door.submit(door.add_model(script_image(UNTIL_TOLD)), {"i": b""})
    door.wait_status(uid, "running")
    url = f"{door.url}/api/tasks/{uid}"

    async def poll(client: httpx.AsyncClient, wait_s: int) -> int:
        return (await client.get(url, params={"wait": wait_s})).status_code

    async def ask() -> Counter[int]:
        limits = httpx.Limits(max_connections=CROWD * 2, max_keepalive_connections=CROWD * 2)
        async with httpx.AsyncClient(verify=trust(door.verify), limits=limits, timeout=300, trust_env=False) as client:
            waiting = [poll(client, 30) for _ in range(CROWD)]
            return Counter(await asyncio.gather(*waiting, *(poll(client, 0) for _ in range(CROWD))))

    assert asyncio.run(ask()) == {551: 2 * CROWD}
    door.http.delete(f"/api/tasks/{uid}")


def test_answers_carry_security_headers_and_the_docs_ask_no_outside_host(door: DoorClient) -> None:
    answer = door.http.get("/docs")
    assert answer.headers["strict-transport-security"].startswith("max-age=31536000")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "http://" not in answer.text
    assert "https://" not in answer.text


def test_nothing_but_the_door_is_reachable_through_the_front(door: DoorClient) -> None:
    for path in ("/internal/claims", "/api/../internal/claims", "/ping", "/dashboard/", "/api/rawdata"):
        assert door.http.get(path).status_code in (404, 405), path


def test_no_container_shows_a_secret(compose: Compose) -> None:
    files = [path for path in (compose.folder / "secrets").iterdir() if path.is_file() and path.suffix != ".conf"]
    secrets = [path.read_text().strip() for path in files]
    assert len(secrets) >= 3
    for service in SERVICES:
        shown = json.dumps(inspect(compose, service))
        assert not [secret for secret in secrets if secret in shown], service
    assert not [secret for secret in secrets if secret in compose.run("logs", "--no-color")]


def test_services_run_with_least_privilege(compose: Compose) -> None:
    for service in SERVICES:
        host = inspect(compose, service)["HostConfig"]
        assert "ALL" in host["CapDrop"] or service == "rabbitmq", service
        assert not host["Privileged"]
        assert host["LogConfig"]["Config"].get("max-size"), service
    for service in ("private-api", "public-api", "grpc-gateway"):
        details = inspect(compose, service)
        assert details["Config"]["User"] == "10001:10001"
        assert details["HostConfig"]["ReadonlyRootfs"] is True


def running_tasks(compose: Compose) -> list[str]:
    """The containers of tasks that run."""
    label = f"label=inference-server.consumer={compose.variables['CONSUMER_NAME']}"
    command = ["docker", "ps", "--quiet", "--filter", label]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def inspect(compose: Compose, service: str) -> dict:  # type: ignore[type-arg]
    done = subprocess.run(["docker", "inspect", compose.container(service)], capture_output=True, text=True, check=True)
    details: dict = json.loads(done.stdout)[0]  # type: ignore[type-arg]
    return details


def port_is_docker(port: int, compose: Compose) -> bool:
    """Whether a port of this host is one that the Engine forwards into the project."""
    listed = compose.run("ps", "--format", "json")
    return f'"PublishedPort":{port},' in listed.replace(" ", "")


def test_the_door_waits_for_the_slowest_start(compose: Compose, door: DoorClient) -> None:
    compose.run("restart", "postgres")
    wait_until(lambda: door.http.get("/readyz").status_code == 200, compose.logs)


def test_an_operator_breaks_the_stack_and_every_promise_is_kept(stack: tuple[Compose, str]) -> None:
    """As docs/reliability.md says."""
    compose, _ = stack
    command = [sys.executable, "-m", "operations", "selftest", "--yes", "--dir", str(compose.folder)]
    environment = {**os.environ, **compose.variables}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert "12 of 12 promises kept; 10 tasks accepted, 10 ended once; 0 left" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0


def test_an_operator_breaks_nothing_while_a_task_waits(stack: tuple[Compose, str], door: DoorClient) -> None:
    compose, _ = stack
    uid = door.submit(door.add_model(script_image(UNTIL_TOLD)), {"i": b""})
    command = [sys.executable, "-m", "operations", "selftest", "--yes", "--dir", str(compose.folder)]
    environment = {**os.environ, **compose.variables}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "1 tasks wait or run on this server" in done.stderr
    door.http.delete(f"/api/tasks/{uid}")
