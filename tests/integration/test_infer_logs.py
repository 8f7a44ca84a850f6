"""`infer logs`: safe on a terminal, exact everywhere else."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.claims import ClaimRequest
from tests.integration.infer_harness import Server, User, serve

LOG = b"\x1b]0;owned\x07\x1b[2J step\r\x1b[32mdone\x1b[0m \xff\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("server")) as server:
        yield server


def test_a_log_steers_no_terminal_and_comes_byte_by_byte_in_a_pipe(server: Server, tmp_path: Path) -> None:
    user = User(tmp_path / "home", INFERENCE_SERVER_URL=server.url)
    uid = user.submits("echo")
    with server.api.consumer() as consumer:
        held = consumer.claim(ClaimRequest(consumer="tests", uid=uid))
        assert held is not None
        consumer.append_log(uid, held.fence, 0, LOG)
    command = [sys.executable, "-m", "inference_client", "logs", uid]
    assert subprocess.run(command, env=user.environment, capture_output=True, check=True).stdout == LOG
    shown = user.types("logs", uid)
    assert shown.raw == "\ufffd]0;owned\ufffd\ufffd[2J step\r\x1b[32mdone\x1b[0m \ufffd\r\n\x1b[0m"
