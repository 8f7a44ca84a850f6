"""How archives come to a consumer."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from contract.archive_fetch import ArchiveSource, is_loopback
from contract.claims import ClaimRequest
from contract.errors import ServiceUnavailable
from contract.private_client import PrivateClient
from contract.schemas import Assignment
from job_consumer.engines import EngineUnavailable, RunKey
from job_consumer.transfer import fetch_archive
from tests.integration.relay_upstream import upstream
from tests.running_api import RunningApi
from tests.zips import make_zip

DATA = make_zip({"a": os.urandom(3 * 1024**2)})


@contextmanager
def held_task(api: RunningApi) -> Iterator[tuple[PrivateClient, Assignment]]:
    with api.client() as http, api.consumer() as consumer:
        http.post("/api/models/", params={"human_readable_id": "echo", "container_tag": "echo:1"})
        zip_type = {"Content-Type": "application/zip"}
        http.post("/api/tasks/", params={"human_readable_id": "echo"}, content=DATA, headers=zip_type)
        held = consumer.claim(ClaimRequest(consumer="ada"))
        assert held is not None
        yield consumer, held


def stored(api: RunningApi) -> Path:
    (name,) = api.files()
    return api.data_dir / "archives" / name


def test_an_input_that_is_not_the_one_of_the_assignment_is_not_run(private_api: RunningApi, tmp_path: Path) -> None:
    with held_task(private_api) as (consumer, held):
        key, target = RunKey(held.uid, held.fence), tmp_path / "input.zip"
        fetch_archive(consumer.fetch_input, key, target, held.input.sha256)
        assert target.read_bytes() == DATA
        with pytest.raises(EngineUnavailable, match="arrived damaged"):
            fetch_archive(consumer.fetch_input, key, target, "0" * 64)


def test_a_consumer_beside_the_archives_links_them(private_api: RunningApi, tmp_path: Path) -> None:
    with held_task(private_api) as (consumer, held):
        target = tmp_path / "input.zip"
        assert consumer.fetch_input(held.uid, held.fence, target) == held.input.sha256
        assert target.samefile(stored(private_api))
        target.unlink()
        assert stored(private_api).read_bytes() == DATA


def test_what_cannot_be_linked_is_fetched_and_the_archive_stays(
    private_api: RunningApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    with held_task(private_api) as (consumer, held):
        target = tmp_path / "input.zip"
        # A link that an earlier try left must not be written through.
        consumer.fetch_input(held.uid, held.fence, target)
        with monkeypatch.context() as patched:
            patched.setattr(os, "link", refuse)
            assert consumer.fetch_input(held.uid, held.fence, target) == held.input.sha256
        assert not target.samefile(stored(private_api))
        assert target.read_bytes() == stored(private_api).read_bytes() == DATA


def test_a_damaged_archive_is_not_taken_by_its_link(private_api: RunningApi, tmp_path: Path) -> None:
    with held_task(private_api) as (consumer, held):
        archive = stored(private_api)
        archive.write_bytes(DATA[:-1] + bytes([DATA[-1] ^ 1]))
        # The private API cuts it, and notes what it found.
        with pytest.raises(ServiceUnavailable):
            consumer.fetch_input(held.uid, held.fence, tmp_path / "input.zip")


@pytest.mark.parametrize("length", [b"content-length: 9", b"transfer-encoding: chunked"])
def test_an_archive_that_breaks_off_is_noticed(length: bytes, tmp_path: Path) -> None:
    answer = b"HTTP/1.1 200 OK\r\n" + length + b"\r\n\r\n" + (b"9\r\nhalf" if b"chunked" in length else b"half")
    with (
        upstream(answer, closes=True) as server,
        PrivateClient(server.url, "token") as client,
        pytest.raises(ServiceUnavailable),
    ):
        client.fetch_input("0" * 32, 1, tmp_path / "input.zip")


def test_a_release_that_cannot_tell_where_archives_lie_sends_them(tmp_path: Path) -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(DATA), DATA)
    with upstream(answer, closes=True) as server:
        source = ArchiveSource(server.url, "token", connect_s=3, silence_s=60)
        sha256 = source.fetch("/internal/x", tmp_path / "input.zip")
    assert (tmp_path / "input.zip").read_bytes() == DATA
    assert sha256 == hashlib.sha256(DATA).hexdigest()


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("10.0.0.1", False), ("private-api", False)],
)
def test_only_this_host_is_asked_for_places(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
