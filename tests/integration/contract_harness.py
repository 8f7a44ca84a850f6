"""A gateway whose keys a small private API judges."""

import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from contract.access import CALLER_KEY_HEADER
from contract.deployments import Route
from contract.errors import Unauthenticated
from tests.integration.grpc_harness import RunningGateway, run_harness_gateway

KEY_ID, KEY_SECRET = "0123456789abcdef", "5" * 64
KEY = f"is_{KEY_ID}_{KEY_SECRET}"
OWNER = "alice"
STREAM_URL = "stream.example.org:9010"


@contextmanager
def run_contract_gateway(
    *routes: Route, scopes: Sequence[str] = ("submit",), asked: list[str] | None = None, **options: Any
) -> Iterator[RunningGateway]:
    """A gateway with these deployments; `KEY`, which has these scopes, is the one key there is.

    Each key that the gateway asks about is added to `asked`.
    """
    with (
        run_key_api(scopes, asked if asked is not None else []) as url,
        run_harness_gateway(url, **({"stream_url": STREAM_URL} | options)) as gateway,
    ):
        gateway.give(*routes)
        yield gateway


@contextmanager
def run_key_api(scopes: Sequence[str], asked: list[str]) -> Iterator[str]:
    """Judges keys, and answers everything else with an empty object; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body: dict[str, Any] = {}
            status = 200
            if self.path == "/internal/gateways/callers":
                asked.append(self.headers[CALLER_KEY_HEADER])
                body = {"owner": OWNER, "scopes": list(scopes)}
                if self.headers[CALLER_KEY_HEADER] != KEY:
                    body, status = Unauthenticated("this key is not known here").to_body(), 401
            self._answer(status, body)

        def do_GET(self) -> None:
            # The test alone says what the table is.
            self._answer(503, {})

        def do_DELETE(self) -> None:
            self._answer(200, {})

        def _answer(self, status: int, body: dict[str, Any]) -> None:
            encoded = json.dumps(body).encode()
            # A gateway that stops does not wait for its last answers.
            with contextlib.suppress(ConnectionError):
                self.send_response(status)
                self.send_header("Content-Length", str(len(encoded)))
                self.end_headers()
                self.wfile.write(encoded)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(60)
        server.server_close()
