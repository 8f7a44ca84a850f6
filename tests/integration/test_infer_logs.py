"""`infer logs`: safe wherever it is shown in the end, and exact if asked for."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from contract.claims import ClaimRequest
from contract.errors import StaleFence
from contract.schemas import Failure
from contract.statuses import Reason
from tests.integration.infer_harness import Server, User, serve
from tests.waiting import PATIENCE_S

LOG = b"\x1b]0;owned\x07\x1b[2J step\r\x1b[32mdone\x1b[0m \xff\n"
SHOWN = "\ufffd]0;owned\ufffd\ufffd[2J step\r\x1b[32mdone\x1b[0m \ufffd\n\x1b[0m"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("server")) as server:
        yield server


def test_a_log_steers_no_terminal_and_comes_byte_by_byte_if_asked_for(server: Server, tmp_path: Path) -> None:
    user = User(tmp_path / "home", INFERENCE_SERVER_URL=server.url)
    uid = user.submits("echo")
    with server.api.consumer() as consumer:
        held = consumer.claim(ClaimRequest(consumer="tests", uid=uid))
        assert held is not None
        consumer.append_log(uid, held.fence, 0, LOG)
    command = [sys.executable, "-m", "inference_client", "logs", uid]
    piped = subprocess.run(command, env=user.environment, capture_output=True, check=True).stdout
    assert piped.decode() == SHOWN
    raw = subprocess.run([*command, "--raw"], env=user.environment, capture_output=True, check=True).stdout
    assert raw == LOG
    assert user.types("logs", uid).raw == SHOWN.replace("\n", "\r\n")


def test_a_file_steers_no_terminal_and_comes_byte_by_byte_elsewhere(server: Server, tmp_path: Path) -> None:
    user = User(tmp_path / "home", INFERENCE_SERVER_URL=server.url)
    (user.home / "scan").write_bytes(LOG)
    uid = user.submits("echo")
    command = [sys.executable, "-m", "inference_client", "cat", uid, "scan", "--input"]
    assert subprocess.run(command, env=user.environment, capture_output=True, check=True).stdout == LOG
    assert user.types("cat", uid, "scan", "--input").raw == SHOWN.replace("\n", "\r\n")


def test_a_bar_moves_where_its_log_is_followed_and_leaves_its_last_frame(server: Server, tmp_path: Path) -> None:
    user = User(tmp_path / "home", INFERENCE_SERVER_URL=server.url)
    uid = user.submits("echo")
    with server.api.consumer() as consumer:
        held = consumer.claim(ClaimRequest(consumer="tests", uid=uid))
        assert held is not None
        consumer.append_log(uid, held.fence, 0, b"start\n")
        with httpx.stream("GET", f"{server.url}/api/tasks/{uid}/logs?follow=true", timeout=PATIENCE_S) as answer:
            pieces = answer.iter_bytes()
            seen = next(pieces)
            for line in (b" 10% of it", b" 20%", b""):
                consumer.show_log_line(uid, held.fence, line)
                seen += next(pieces)
            consumer.show_log_line(uid, held.fence, b" 90%")
            seen += next(pieces)
            consumer.append_log(uid, held.fence, 6, b"\r100%\n")
            seen += next(pieces)
            consumer.show_log_line(uid, held.fence, b"left")
            seen += next(pieces)
            consumer.fail(uid, held.fence, Failure(consumer="tests", reason=Reason.EXIT_CODE, detail="it ended"))
            seen += b"".join(pieces)
        with pytest.raises(StaleFence):
            consumer.show_log_line(uid, held.fence, b"forged")
    # Each state begins the line anew, and leaves nothing of a longer one.
    frames = b"\r 10% of it\r 20%      \r    \r\r 90%\r    \r\r100%\n\rleft\r    \r"
    assert seen == b"start\n" + frames
    stored = httpx.get(f"{server.url}/api/tasks/{uid}/logs").content
    assert stored == b"start\n\r100%\n"
