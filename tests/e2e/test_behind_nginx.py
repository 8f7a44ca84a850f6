"""nginx as docs/how-to/behind-nginx.md configures it: nothing is cut, stored, repeated or reworded."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from threading import Event

import httpx
import pytest

from inference_client import InferenceClient, ModelRegistration
from tests.doc_pages import section
from tests.e2e.compose import ROOT
from tests.e2e.images import UNTIL_TOLD, script_image
from tests.e2e.systems import Process, System, free_port, standalone_system, trust
from tests.services import missing, require_docker
from tests.waiting import PATIENCE_S, wait_until
from tests.zips import make_zip

PAGE = "docs/how-to/behind-nginx.md"
MIB = 1024**2
ENDLESS = f"echo started; {UNTIL_TOLD}"
GLOBAL = """daemon off; pid {folder}/nginx.pid; error_log stderr;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
{server}
}}
"""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    require_docker()
    with standalone_system(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def http(system: System, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The server through nginx, with two models."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None:
        missing("no nginx is installed; on Debian: apt-get install nginx-light")
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    certs = folder / "certs"
    certs.mkdir()
    script = shutil.copy(ROOT / "traefik/certs/generate_self_signed_certs", certs)
    subprocess.run([script, "localhost"], check=True, capture_output=True)
    block = section(PAGE, "Behind nginx").file("nginx")
    for shown, here in {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "inference.example.org": "localhost",
        "/etc/nginx/inference.crt": f"{certs}/server.crt",
        "/etc/nginx/inference.key": f"{certs}/server.key",
        "http://127.0.0.1:8000": system.url,
    }.items():
        assert shown in block
        block = block.replace(shown, here)
    config = folder / "nginx.conf"
    config.write_text(GLOBAL.format(folder=folder, server=block))
    check, reload = section(PAGE, "Behind nginx").commands
    assert (check, reload) == ("sudo nginx -t", "sudo nginx -s reload")
    tested = subprocess.run([nginx, "-t", "-c", str(config)], capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stderr
    process = Process("nginx", [nginx, "-c", str(config)], {}, folder / "nginx.log")
    process.start()
    url, ca = f"https://localhost:{port}", str(certs / "server.crt")
    try:
        wait_until(lambda: _answers(url, ca), process.output)
        subprocess.run([nginx, "-s", "reload", "-c", str(config)], check=True, capture_output=True)
        with InferenceClient(url, verify=ca) as models:
            models.add_model(ModelRegistration(human_readable_id="endless", container_tag=script_image(ENDLESS)))
            models.add_model(ModelRegistration(human_readable_id="bad", container_tag=script_image("echo no; exit 3")))
            quick = script_image("sleep 2; echo ended > /output/a")
            models.add_model(ModelRegistration(human_readable_id="quick", container_tag=quick))
        with httpx.Client(base_url=url, verify=trust(ca), trust_env=False, timeout=PATIENCE_S) as client:
            yield client
    finally:
        process.end()


def _answers(url: str, ca: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", verify=trust(ca), trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_the_codes_from_550_up_pass_with_their_bodies(http: httpx.Client) -> None:
    zip_file = {"zip_file": ("input.zip", make_zip({"a": b"b"}))}
    unknown = http.post("/api/tasks/?human_readable_id=nobody", files=zip_file)
    assert (unknown.status_code, unknown.json()["error"]) == (550, "ModelNotFound")
    endless = http.post("/api/tasks/?human_readable_id=endless", files=zip_file).json()
    pending = http.get(f"/api/tasks/{endless}")
    http.post(f"/api/tasks/{endless}/cancel").raise_for_status()
    assert (pending.status_code, pending.json()["error"]) == (551, "TaskPending")
    bad = http.post("/api/tasks/?human_readable_id=bad", files=zip_file).json()
    failed = http.get(f"/api/tasks/{bad}?wait=60")
    assert (failed.status_code, failed.json()["reason"]) == (552, "exit_code")
    absent = http.get(f"/api/tasks/{'0' * 64}")
    assert (absent.status_code, absent.json()["error"]) == (554, "TaskNotFound")


def test_a_poll_is_held_until_the_task_ends(http: httpx.Client) -> None:
    uid = http.post("/api/tasks/?human_readable_id=quick", files={"zip_file": make_zip({"a": b"b"})}).json()
    answer = http.get(f"/api/tasks/{uid}?wait=60")
    while answer.status_code == 551:  # A busy machine may take longer than a poll is held.
        answer = http.get(f"/api/tasks/{uid}?wait=60")
    assert answer.status_code == 200


def test_a_log_is_followed_while_the_task_runs(http: httpx.Client) -> None:
    uid = http.post("/api/tasks/?human_readable_id=endless", files={"zip_file": make_zip({"a": b"b"})}).json()
    with http.stream("GET", f"/api/tasks/{uid}/logs?follow=true") as log:
        first = next(log.iter_lines())
        # Whatever was stored on the way would arrive only once the task has ended.
        status = http.get(f"/api/tasks/{uid}/status").json()["status"]
        http.post(f"/api/tasks/{uid}/cancel").raise_for_status()
    assert (first, status) == ("started", "running")


def test_an_upload_passes_while_it_is_sent_and_may_be_large(system: System, http: httpx.Client) -> None:
    content = make_zip({"large": os.urandom(3 * MIB)})
    arrived = Event()
    folder = system.data_dir / "archives" / "tmp"

    def body() -> Iterator[bytes]:
        yield content[:MIB]
        # Stored on the way, nothing would arrive before the end.
        wait_until(lambda: any(path.stat().st_size for path in folder.iterdir()), system.logs)
        arrived.set()
        yield content[MIB:]

    answer = http.post(
        "/api/tasks/?human_readable_id=quick", content=body(), headers={"Content-Type": "application/zip"}
    )
    assert arrived.is_set()
    assert answer.status_code == 200, answer.text
