"""What container health checks call: its exit code, and the line that `docker inspect` then shows."""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from kit.healthcheck import MAX_AGE_S
from tests.e2e.systems import free_port


class _Readiness(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        ready = self.path == "/readyz"
        self.send_response(200 if ready else 503)
        self.end_headers()
        self.wfile.write(b"ready" if ready else b"the database does not answer")

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a service that is ready at /readyz and not ready elsewhere."""
    with HTTPServer(("127.0.0.1", 0), _Readiness) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()
        thread.join()


def check(target: str, **environment: str) -> tuple[int, str]:
    """Exit code and output, as Docker sees them."""
    command = [sys.executable, "-m", "kit.healthcheck", target]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_service_that_is_ready_is_healthy_whatever_proxy_the_environment_names(server: str) -> None:
    assert check(f"{server}/readyz", http_proxy="http://127.0.0.1:9") == (0, "")


def test_a_service_that_is_not_ready_says_why(server: str) -> None:
    assert check(f"{server}/other") == (1, f"{server}/other answers 503: the database does not answer\n")


def test_a_service_that_is_not_there_is_not_healthy() -> None:
    url = f"http://127.0.0.1:{free_port()}/readyz"
    code, output = check(url)
    assert (code, output.partition(":")[0]) == (1, "http")
    assert output.startswith(f"{url} does not answer: ")
    assert "Traceback" not in output


def test_a_file_that_is_touched_is_healthy(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    alive.touch()
    assert check(f"file:{alive}") == (0, "")


def test_a_file_that_is_no_longer_touched_is_not(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    alive.touch()
    then = time.time() - MAX_AGE_S - 10
    os.utime(alive, (then, then))
    code, output = check(f"file:{alive}")
    assert code == 1
    # However long the interpreter took to start.
    assert re.search(r"was last touched 1\d\d s ago", output)
