"""The other side of a consumer, small and real: an HTTP server that answers as a test says, and an engine in memory."""

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event
from typing import Any

from job_consumer.engines import ContainerSpec, ExitState, Mount, OnPull, RunKey, RunState, RunVanished, StoredImage
from job_consumer.networks import Network
from tests.waiting import PATIENCE_S

GARBAGE = b"<html>a proxy's page in place of an answer</html>"
BEAT_REPLY = {"cancel": False, "seconds_left": 60}


@dataclass
class Peer:
    """Answers each path's last part (`heartbeat`, `log`, ...) from a list; the last answer is repeated."""

    url: str = ""
    answers: dict[str, list[Any]] = field(default_factory=dict)
    calls: list[tuple[str, bytes]] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def answer(self, path: str, body: bytes) -> bytes:
        name = path.partition("?")[0].rpartition("/")[2]
        with self.changed:
            self.calls.append((name, body))
            planned = self.answers.get(name, [None])
            given = planned.pop(0) if len(planned) > 1 else planned[0]
            self.changed.notify_all()
        return given if isinstance(given, bytes) else json.dumps(given).encode()

    def wait_for(self, name: str, count: int) -> list[bytes]:
        """The bodies of the calls of this name, once there are this many."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self._bodies(name)) >= count, PATIENCE_S), (
                f"no {count} calls of {name}"
            )
            return self._bodies(name)

    def _bodies(self, name: str) -> list[bytes]:
        return [body for called, body in self.calls if called == name]


@contextmanager
def consumer_peer(**answers: list[Any]) -> Iterator[Peer]:
    """A server on the loopback while the block is open."""
    peer = Peer(answers=answers)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            encoded = peer.answer(self.path, body)
            self.send_response(200)
            self.send_header("Content-Length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    peer.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield peer
    finally:
        server.shutdown()
        thread.join(60)
        server.server_close()


class MemoryEngine:
    """Runs nothing, and raises what a test puts into `faults`: one exception per call of that method."""

    def __init__(self, *, address: str | None = None, log: bytes = b"") -> None:
        self.faults: dict[str, list[Exception]] = {}
        self.removed: list[RunKey] = []
        self.ended = Event()
        self.written = 0
        self.output: Iterable[bytes] = ()
        self._address = address
        self._log = log
        self._runs: dict[RunKey, ContainerSpec] = {}
        self.changed = threading.Condition()

    def check(self) -> str:
        return "an engine in memory"

    def host_name(self) -> str:
        return "a-host-in-memory"

    def ensure_image(
        self, image: str, pull_policy: str, on_progress: OnPull | None = None, *, has_run: bool = False
    ) -> None:
        self._fail("ensure_image")

    def look_up_image(self, image: str, pull_policy: str) -> tuple[bool, None]:
        self._fail("look_up_image")
        return True, None

    def start(self, spec: ContainerSpec) -> None:
        self._fail("start")
        self._runs[spec.key] = spec

    def find(self, consumer: str) -> list[tuple[RunKey, RunState]]:
        self._fail("find")
        return [(key, RunState.RUNNING) for key in self._runs]

    def wait(self, key: RunKey, timeout_s: float) -> ExitState | None:
        self._fail("wait")
        if key not in self._runs:
            raise RunVanished(key.name)
        return ExitState(0, out_of_memory=False) if self.ended.wait(min(timeout_s, 0.05)) else None

    def follow_log(self, key: RunKey, stop: Event) -> Iterator[bytes]:
        self._fail("follow_log")
        yield self._log

    def follow_output(self, key: RunKey, stop: Event) -> Iterator[bytes]:
        self._fail("follow_output")
        yield from self.output

    def log_tail(self, key: RunKey, max_bytes: int) -> bytes:
        return self._log[-max_bytes:]

    def find_network(self, name: str) -> Network | None:
        return Network(is_internal=True)

    def is_guarded(self, key: RunKey) -> bool:
        return False

    def address(self, key: RunKey, port: int) -> str | None:
        return self._address

    def environment(self, key: RunKey) -> Mapping[str, str]:
        return self._runs[key].environment

    def written_bytes(self, key: RunKey) -> int:
        return self.written

    def storage_dir(self) -> Path | None:
        return None

    def find_image(self, image: str) -> StoredImage | None:
        return None

    def ran_image(self, key: RunKey) -> None:
        """It has no images."""

    def remove_image(self, image: str) -> bool:
        return True

    def forget_folder(self, mount: Mount) -> bool:
        return True

    def stop(self, key: RunKey, grace_s: float) -> None:
        self._fail("stop")

    def remove(self, key: RunKey) -> None:
        self._fail("remove")
        self._runs.pop(key, None)
        with self.changed:
            self.removed.append(key)
            self.changed.notify_all()

    def close(self) -> None:
        pass

    def wait_removed(self, key: RunKey) -> None:
        """Returns once the run is removed."""
        self.wait_until(lambda: key in self.removed, f"{key.name} is not removed")

    def wait_until(self, condition: Callable[[], bool], otherwise: str) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, PATIENCE_S), otherwise

    def _fail(self, call: str) -> None:
        if faults := self.faults.get(call):
            raise faults.pop(0)
