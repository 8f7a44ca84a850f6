"""A small server that speaks the HTTP contract on a real socket, and can be told to misbehave."""

import hashlib
import json
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from contract.errors import InferenceError

UID = "ab" * 32
MODEL = "echo"


@dataclass
class Answer:
    """What is sent once instead of the usual answer. `cut_after`: close the connection after so many body bytes."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None

    @classmethod
    def of(cls, error: InferenceError, **headers: str) -> "Answer":
        return cls(error.http_status, json.dumps(error.to_body()).encode(), headers)


@dataclass
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


def task_view(**fields: Any) -> dict[str, Any]:
    return {
        "uid": UID,
        "human_readable_id": MODEL,
        "model_version": 1,
        "status": "queued",
        "attempt": 0,
        "created_at": "2024-05-01T12:00:00Z",
        **fields,
    }


def model_view(**fields: Any) -> dict[str, Any]:
    return {
        "human_readable_id": MODEL,
        "version": 1,
        "container_tag": "example/echo:1",
        "description": "says it again",
        "model_available": False,
        "use_gpu": False,
        "pull_policy": "missing",
        "isolation": "strict",
        "time_limit_s": 3600,
        "memory_limit_bytes": None,
        "archive": None,
        "created_at": "2024-05-01T12:00:00Z",
        **fields,
    }


def version_view(**fields: Any) -> dict[str, Any]:
    names = ("container_tag", "description", "use_gpu", "archive", "created_at")
    uses = {"deployed": False, "queued": 0, "held": 0}
    return {
        "version": 2,
        "default": True,
        "retired": False,
        **uses,
        **{name: model_view()[name] for name in names},
    } | fields


class Peer:
    """The server's state. `script` holds answers per (method, path) that are sent first, in turn."""

    def __init__(self) -> None:
        self.url = ""
        self.seen: list[Seen] = []
        self.script: defaultdict[tuple[str, str], deque[Answer]] = defaultdict(deque)
        self.views: deque[dict[str, Any]] = deque([task_view()])
        self.models = [model_view()]
        self.versions = [version_view(), version_view(version=1, default=False)]
        self.tasks: list[dict[str, Any]] = []
        self.queue: dict[str, Any] = {"lanes": [], "tasks": []}
        self.consumers: list[dict[str, Any]] = []
        self.output = b""
        self.etag: str | None = None
        self.warning_count = 0
        self.log = b""
        self.events: list[dict[str, Any]] = []
        self.attempts: list[dict[str, Any]] = []
        self.asked = threading.Event()
        task = f"/api/tasks/{UID}"
        self._usual: dict[tuple[str, str], Callable[[Seen], Answer]] = {
            ("POST", "/api/tasks/"): lambda seen: _json(UID),
            ("GET", "/api/tasks/"): lambda seen: _json(_page(self.tasks, "uid", seen.query)),
            ("GET", "/api/queue"): lambda seen: _json(self.queue),
            ("GET", "/api/consumers/"): lambda seen: _json(_page(self.consumers, "name", seen.query)),
            ("GET", "/api/models/"): lambda seen: _json(_page(self.models, "human_readable_id", seen.query)),
            ("POST", "/api/models/"): lambda seen: _json(self.models[0]),
            ("GET", f"/api/models/{MODEL}"): lambda seen: _json(self.models[0]),
            ("PATCH", f"/api/models/{MODEL}"): lambda seen: _json(self.models[0]),
            ("DELETE", f"/api/models/{MODEL}"): lambda seen: Answer(204),
            ("GET", f"/api/models/{MODEL}/versions"): lambda seen: _json(self.versions),
            ("PATCH", f"/api/models/{MODEL}/versions/1"): lambda seen: _json(self.versions[1]),
            ("GET", f"{task}/status"): lambda seen: _json(
                self.views.popleft() if len(self.views) > 1 else self.views[0]
            ),
            ("GET", f"{task}/output"): self._send_output,
            ("GET", f"{task}/logs"): lambda seen: Answer(body=self.log),
            ("GET", f"{task}/events"): lambda seen: _json(self.events),
            ("GET", f"{task}/attempts"): lambda seen: _json(self.attempts),
            ("POST", f"{task}/cancel"): lambda seen: _json(task_view(status="cancelled", reason="cancelled")),
            ("DELETE", task): lambda seen: Answer(204),
        }

    def plan(self, method: str, path: str, *answers: Answer) -> None:
        self.script[method, path].extend(answers)

    def calls(self, method: str, path: str) -> list[Seen]:
        return [seen for seen in self.seen if (seen.method, seen.path) == (method, path)]

    def answer(self, seen: Seen) -> Answer:
        planned = self.script[seen.method, seen.path]
        if planned:
            return planned.popleft()
        usual = self._usual.get((seen.method, seen.path))
        return usual(seen) if usual else Answer(404, b"<html>not found</html>")

    def answer_output(self) -> Answer:
        """The output as it is now, whole."""
        etag = hashlib.sha256(self.output).hexdigest()
        return Answer(body=self.output, headers={"ETag": f'"{etag}"'})

    def _send_output(self, seen: Seen) -> Answer:
        etag = self.etag if self.etag is not None else f'"{hashlib.sha256(self.output).hexdigest()}"'
        wanted = seen.headers.get("range", "")
        if not wanted or seen.headers.get("if-range") != etag:
            warned = {"X-Task-Warnings": str(self.warning_count)} if self.warning_count else {}
            return Answer(body=self.output, headers={"ETag": etag, **warned})
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        headers = {"ETag": etag, "Content-Range": f"bytes {start}-{len(self.output) - 1}/{len(self.output)}"}
        return Answer(206, self.output[start:], headers)


@contextmanager
def running_peer(port: int = 0) -> Iterator[Peer]:
    peer = Peer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            url = urlsplit(self.path)
            seen = Seen(
                self.command,
                url.path,
                dict(parse_qsl(url.query)),
                {name.lower(): value for name, value in self.headers.items()},
                self._read_body(),
            )
            peer.seen.append(seen)
            peer.asked.set()
            self._send(peer.answer(seen))

        do_GET = do_POST = do_PATCH = do_DELETE = do_HEAD = handle_any  # noqa: N815

        def _read_body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", "0")))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def _send(self, answer: Answer) -> None:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if answer.status != 204:
                self.send_header("Content-Length", str(len(answer.body)))
            if answer.cut_after is not None:
                self.close_connection = True
            self.end_headers()
            self.wfile.write(answer.body[: answer.cut_after])

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        peer.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield peer
        finally:
            server.shutdown()
            thread.join()


def _json(value: Any) -> Answer:
    return Answer(body=json.dumps(value).encode(), headers={"Content-Type": "application/json"})


def _page(items: list[dict[str, Any]], key: str, query: dict[str, str]) -> list[dict[str, Any]]:
    after = query.get("after", "")
    return [item for item in items if item[key] > after][: int(query["limit"])]
