"""HTTP for whoever comes: requests that arrive too slowly are refused, or a few senders could hold every connection."""

import asyncio
import json
import logging
from typing import Any

from kit.http_protocol import DecliningProtocol

logger = logging.getLogger(__name__)

HEAD_S = 30
"""How long the head of a request may take, from its first byte, or from the connection for the first one."""
BODY_S = 60
"""In each such time a body must bring `BODY_BYTES`, unless this side makes it wait."""
BODY_BYTES = 60 * 1024
"""1 KiB/s: a phone at the edge of its network is faster, and a stall of a minute is not."""
_NAME = "TooSlow"


class PacedProtocol(DecliningProtocol):
    """Answers 408 (RFC 9110, section 15.5.9) to a request that is too slow, and closes its connection."""

    _head_timer: asyncio.TimerHandle | None = None
    _body_timer: asyncio.TimerHandle | None = None
    _received = 0
    _is_in_body = False
    """Whether more of a request's body is to come; it may have been answered by then."""

    def connection_made(self, transport: Any) -> None:
        """Wait for the first request."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop(self._head_timer)
        self._stop(self._body_timer)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; what is not a whole head is the begin of one."""
        if self._head_timer is None and self._is_idle() and not self._is_in_body:
            self._await_head()
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """Serve the request, and watch its body."""
        self._stop(self._head_timer)
        self._head_timer = None
        self._is_in_body = True
        super().on_headers_complete()
        self._watch_body()

    def on_body(self, body: bytes) -> None:
        """Pass a piece on."""
        self._received += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The body is here."""
        self._stop(self._body_timer)
        self._is_in_body = False
        super().on_message_complete()

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_S, self._refuse, f"its head took longer than {HEAD_S} s")

    def _watch_body(self) -> None:
        self._stop(self._body_timer)
        self._received = 0
        self._body_timer = self.loop.call_later(BODY_S, self._judge_body)

    def _judge_body(self) -> None:
        is_ours = self.flow.read_paused or self.cycle.waiting_for_100_continue
        if is_ours or self._received >= BODY_BYTES:
            self._watch_body()
        else:
            self._refuse(f"its body brought {self._received} bytes in {BODY_S} s; {BODY_BYTES} are the least")

    def _refuse(self, why: str) -> None:
        if self.transport.is_closing():
            return
        logger.info("a request is refused: %s", why)
        if not (self._is_in_body and self.cycle.response_started):
            body = json.dumps({"error": _NAME, "detail": f"the request is too slow: {why}"}).encode()
            head = b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\nconnection: close\r\n"
            self.transport.write(b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body))
        self.transport.close()

    @staticmethod
    def _stop(timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()
