"""Outputs arrive whole or not at all: resumed after cuts, checked, and never half there under their name."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract import errors as server
from inference_client import InferenceClient
from inference_client.download import RESUMES
from inference_client.errors import DamagedDownload, ServiceUnavailable, UnusableInput
from tests.unit.client_peer import UID, Answer, Peer, running_peer

OUTPUT = f"/api/tasks/{UID}/output"
DATA = os.urandom(700_000)
ETAG = f'"{hashlib.sha256(DATA).hexdigest()}"'


def cut(at: int, start: int = 0, **headers: str) -> Answer:
    ranged = {"Content-Range": f"bytes {start}-{len(DATA) - 1}/{len(DATA)}"} if start else {}
    return Answer(206 if start else 200, DATA[start:], {"ETag": ETAG, **ranged, **headers}, cut_after=at)


@pytest.fixture
def peer() -> Iterator[Peer]:
    with running_peer() as peer:
        peer.output = DATA
        yield peer


@pytest.fixture
def client(peer: Peer) -> Iterator[InferenceClient]:
    with InferenceClient(peer.url, timeout_s=60, sleep=lambda seconds: None) as client:
        yield client


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_an_output_is_stored_and_nothing_beside_it(client: InferenceClient, tmp_path: Path) -> None:
    progress: list[tuple[int, int | None]] = []
    target = client.fetch(UID, tmp_path / "out.zip", lambda done, total: progress.append((done, total)))
    assert target.read_bytes() == DATA
    assert names(tmp_path) == ["out.zip"]
    assert progress[-1] == (len(DATA), len(DATA))


def test_a_cut_download_goes_on_where_it_was(client: InferenceClient, peer: Peer, tmp_path: Path) -> None:
    peer.plan("GET", OUTPUT, cut(300_000), cut(100_000, start=300_000))
    assert client.fetch(UID, tmp_path / "out.zip").read_bytes() == DATA
    assert [seen.headers.get("range") for seen in peer.seen] == [None, "bytes=300000-", "bytes=400000-"]
    assert {seen.headers.get("if-range") for seen in peer.seen[1:]} == {ETAG}


def test_a_server_that_is_away_in_between_is_waited_for(client: InferenceClient, peer: Peer, tmp_path: Path) -> None:
    peer.plan("GET", OUTPUT, cut(1000), Answer.of(server.ServiceUnavailable()), Answer(502, b"<html>"))
    assert client.fetch(UID, tmp_path / "out.zip").read_bytes() == DATA


def test_an_output_that_changed_meanwhile_starts_over(client: InferenceClient, peer: Peer, tmp_path: Path) -> None:
    old = b"old" * 1000
    peer.plan("GET", OUTPUT, Answer(200, old, {"ETag": f'"{hashlib.sha256(old).hexdigest()}"'}, cut_after=500))
    assert client.fetch(UID, tmp_path / "out.zip").read_bytes() == DATA


def test_a_part_that_was_not_asked_for_is_not_glued_on(client: InferenceClient, peer: Peer, tmp_path: Path) -> None:
    wrong = Answer(206, DATA[5:], {"ETag": ETAG, "Content-Range": f"bytes 5-{len(DATA) - 1}/{len(DATA)}"})
    peer.plan("GET", OUTPUT, cut(1000), wrong)
    assert client.fetch(UID, tmp_path / "out.zip").read_bytes() == DATA
    assert "range" not in peer.seen[2].headers


def test_a_weak_tag_starts_over_instead_of_resuming(client: InferenceClient, peer: Peer, tmp_path: Path) -> None:
    peer.etag = f"W/{ETAG}"
    peer.plan("GET", OUTPUT, cut(1000, ETag=peer.etag))
    assert client.fetch(UID, tmp_path / "out.zip").read_bytes() == DATA
    assert "range" not in peer.seen[1].headers


def test_a_download_that_is_always_cut_gives_up_and_leaves_nothing(
    client: InferenceClient, peer: Peer, tmp_path: Path
) -> None:
    peer.plan("GET", OUTPUT, *[cut(1, start=start) for start in range(50)])
    with pytest.raises(ServiceUnavailable, match="was cut"):
        client.fetch(UID, tmp_path / "out.zip")
    assert len(peer.seen) == 1 + RESUMES
    assert names(tmp_path) == []


@pytest.mark.parametrize("etag", [f'"{"0" * 64}"', '"not-a-hash"', ""])
def test_a_damaged_or_uncheckable_download_is_thrown_away(
    client: InferenceClient, peer: Peer, tmp_path: Path, etag: str
) -> None:
    peer.etag = etag
    (tmp_path / "out.zip").write_bytes(b"the one from before")
    with pytest.raises(DamagedDownload, match="sha256"):
        client.fetch(UID, tmp_path / "out.zip")
    assert names(tmp_path) == ["out.zip"]
    assert (tmp_path / "out.zip").read_bytes() == b"the one from before"


def test_bytes_that_changed_between_two_parts_are_noticed(client: InferenceClient, peer: Peer, tmp_path: Path) -> None:
    bent = Answer(206, bytes(len(DATA) - 1000), cut(0, start=1000).headers)
    peer.plan("GET", OUTPUT, cut(1000), bent)
    with pytest.raises(DamagedDownload):
        client.fetch(UID, tmp_path / "out.zip")
    assert names(tmp_path) == []


def test_an_interrupted_download_leaves_nothing(client: InferenceClient, tmp_path: Path) -> None:
    def interrupt(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.fetch(UID, tmp_path / "out.zip", interrupt)
    assert names(tmp_path) == []


def test_an_empty_output_is_an_output(client: InferenceClient, peer: Peer, tmp_path: Path) -> None:
    peer.output = b""
    assert client.fetch(UID, tmp_path / "out.zip").read_bytes() == b""


def test_a_place_that_cannot_hold_a_file_is_refused_before_anything_is_asked(
    client: InferenceClient, peer: Peer, tmp_path: Path
) -> None:
    for target, message in ((tmp_path, "is a folder"), (tmp_path / "no" / "out.zip", "does not exist")):
        with pytest.raises(UnusableInput, match=message):
            client.fetch(UID, target)
    assert peer.seen == []
