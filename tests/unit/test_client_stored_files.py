"""Single files as the client reads them: resumed after a cut, and never made of two files."""

from collections.abc import Iterator

import pytest

from inference_client import InferenceClient
from inference_client.errors import DamagedDownload, FileNotFound, ServiceUnavailable, UnusableInput
from tests.unit.client_peer import UID, Answer, Peer, running_peer

FILES = f"/api/tasks/{UID}/output/files"
ETAG = {"ETag": '"abc.00000000"'}


@pytest.fixture
def peer() -> Iterator[Peer]:
    with running_peer() as peer:
        yield peer


@pytest.fixture
def client(peer: Peer) -> Iterator[InferenceClient]:
    with InferenceClient(peer.url, sleep=lambda _: None) as client:
        yield client


def test_a_cut_file_is_resumed_where_it_broke_off(peer: Peer, client: InferenceClient) -> None:
    rest = {**ETAG, "Content-Range": "bytes 4-9/10"}
    peer.plan("GET", f"{FILES}/a.txt", Answer(200, b"0123456789", ETAG, cut_after=4), Answer(206, b"456789", rest))
    assert b"".join(client.read_file(UID, "a.txt")) == b"0123456789"
    first, second = peer.calls("GET", f"{FILES}/a.txt")
    assert "range" not in first.headers
    assert (second.headers["range"], second.headers["if-range"]) == ("bytes=4-", ETAG["ETag"])


def test_a_file_that_became_another_is_not_continued(peer: Peer, client: InferenceClient) -> None:
    peer.plan("GET", f"{FILES}/a.txt", Answer(200, b"0123456789", ETAG, cut_after=4), Answer(200, b"another", {}))
    with pytest.raises(DamagedDownload):
        b"".join(client.read_file(UID, "a.txt"))


def test_a_file_that_is_cut_again_and_again_is_given_up(peer: Peer, client: InferenceClient) -> None:
    peer.plan("GET", f"{FILES}/a.txt", *[Answer(200, b"01", ETAG, cut_after=0)] * 6)
    with pytest.raises(ServiceUnavailable):
        b"".join(client.read_file(UID, "a.txt"))
    assert len(peer.calls("GET", f"{FILES}/a.txt")) == 6


def test_names_are_sent_as_they_are_and_none_leads_elsewhere(peer: Peer, client: InferenceClient) -> None:
    path = f"{FILES}/case%201/%C3%BC%20%231%3F%25.txt"
    peer.plan("GET", path, Answer(200, b"x", ETAG))
    assert b"".join(client.read_file(UID, "case 1/ü #1?%.txt")) == b"x"
    for name in ("../status", "a/../../status", "", "/etc", "a//b", "."):
        with pytest.raises(UnusableInput):
            next(client.read_file(UID, name))
    body = b'{"error": "FileNotFound", "detail": "no such file"}'
    peer.plan("GET", f"{FILES}/b.txt", Answer(404, body, {}))
    with pytest.raises(FileNotFound):
        next(client.read_file(UID, "b.txt"))
