"""What the private API answers where the disk of its data is nearly full, or full."""

import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from contract.claims import ClaimRequest
from contract.errors import StorageFull
from kit.disk import free_bytes
from tests.databases import copy_sqlite
from tests.running_api import RunningApi, run_private_api
from tests.small_disk import MIB, fill_disk, small_disk
from tests.zips import make_zip

RESERVE = 8 * MIB


@pytest.fixture
def api(sqlite_template: Path, tmp_path: Path) -> Iterator[RunningApi]:
    """Its database and its files are on one disk of 32 MiB."""
    with (
        small_disk(tmp_path / "disk", 32 * MIB) as disk,
        run_private_api(copy_sqlite(sqlite_template, disk), disk / "data", disk_reserve_bytes=RESERVE) as running,
    ):
        yield running


@pytest.fixture
def http(api: RunningApi) -> Iterator[httpx.Client]:
    with api.client() as client:
        client.post("/api/models/?human_readable_id=echo&container_tag=echo:1").raise_for_status()
        yield client


def submit(http: httpx.Client) -> str:
    zipped = make_zip({"a.txt": b"hello"})
    headers = {"Content-Type": "application/zip"}
    answer = http.post("/api/tasks/?human_readable_id=echo", content=zipped, headers=headers)
    uid: str = answer.raise_for_status().json()
    return uid


def test_an_upload_without_a_length_stops_at_the_reserve(api: RunningApi, http: httpx.Client) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(60):
            yield bytes(MIB)

    headers = {"Content-Type": "application/zip"}
    answer = http.post("/api/tasks/?human_readable_id=echo", content=endless(), headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (507, "StorageFull")
    assert f"{RESERVE} are reserved" in answer.json()["detail"]
    assert api.files() == []


def test_an_upload_that_cannot_fit_is_refused_before_its_body(api: RunningApi, http: httpx.Client) -> None:
    free = free_bytes(api.data_dir)
    lines = [
        "POST /api/tasks/?human_readable_id=echo HTTP/1.1",
        "Host: private-api",
        f"Authorization: Bearer {api.token}",
        "Content-Type: application/zip",
        f"Content-Length: {free - RESERVE + 1}",
    ]
    url = urlsplit(api.url)
    with socket.create_connection((str(url.hostname), int(url.port or 0)), timeout=60) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        # Not a byte of the body was sent.
        assert connection.recv(64).startswith(b"HTTP/1.1 507 ")


def test_a_piece_of_a_log_is_refused_and_can_be_repeated(api: RunningApi, http: httpx.Client) -> None:
    submit(http)
    with api.consumer() as consumer:
        held = consumer.claim(ClaimRequest(consumer="ada", accepts_cpu_tasks=True))
        assert held is not None
        filler = fill_disk(api.data_dir, leave=RESERVE)
        with pytest.raises(StorageFull):
            consumer.append_log(held.uid, held.fence, 0, b"a line\n")
        filler.unlink()
        consumer.append_log(held.uid, held.fence, 0, b"a line\n")
    assert http.get(f"/api/tasks/{held.uid}/logs").text == "a line\n"


def test_tasks_are_cancelled_and_deleted_on_a_full_disk(api: RunningApi, http: httpx.Client) -> None:
    uids = [submit(http) for _ in range(20)]
    ballast = api.data_dir / "ballast"
    assert ballast.stat().st_blocks * 512 == RESERVE // 8
    filler = fill_disk(api.data_dir)
    assert free_bytes(api.data_dir) == 0
    for uid in uids[:10]:
        assert http.post(f"/api/tasks/{uid}/cancel").status_code == 200
    for uid in uids:
        assert http.delete(f"/api/tasks/{uid}").status_code in (200, 204)
    assert not ballast.exists()
    filler.unlink()
    submit(http)
    assert ballast.exists()
