"""HTTP/1.1 as this server speaks it: an offer to switch to another protocol is declined, and its request served.

Java's `HttpClient` and `curl --http2` offer HTTP/2 with each request over plain HTTP (RFC 7540, section 3.2). A server
may ignore the offer (RFC 9110, section 7.8); httptools takes it for accepted and keeps the request's body back.

Each connection may bring one more request as the server stops: a proxy may have sent it by then, and cannot know
whether it may be sent again.
"""

import sys

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LAST_REQUEST_S = 0.5
"""How long a connection may take for its last request once the server stops."""
_OF_THE_OFFER = (b"upgrade", b"connection", b"http2-settings")


class DecliningProtocol(HttpToolsProtocol):
    """Reads a request that comes with such an offer as if it had none."""

    _data = b""
    _is_stopping = False

    def shutdown(self) -> None:
        """Close the connection after the request that is under way, or else after one that comes soon."""
        self._is_stopping = True
        if self._is_idle():
            self.loop.call_later(LAST_REQUEST_S, self._close_idle)
        else:
            super().shutdown()

    def on_headers_complete(self) -> None:
        """Serve the request."""
        super().on_headers_complete()
        if self._is_stopping and self.cycle is not None:
            self.cycle.keep_alive = False

    def _is_idle(self) -> bool:
        return self.cycle is None or bool(self.cycle.response_complete)

    def _close_idle(self) -> None:
        if self._is_idle():
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Feed the parser."""
        self._data = data
        super().data_received(data)

    def _should_upgrade(self) -> bool:
        # The head waits for `handle_websocket_upgrade`, which is called at its end for every kind of offer.
        return True

    def handle_websocket_upgrade(self) -> None:
        """Parse the request once more, without the offer."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            # No offer, but a tunnel: the parser would stop at its head again.
            self.send_400_response("CONNECT is not served.")
            return
        # uvicorn calls this while it handles httptools' `HttpParserUpgrade`, which says where the head ended.
        (head_end,) = getattr(sys.exception(), "args", (len(self._data),))
        version = self.parser.get_http_version().encode()
        head = [b"%b %b HTTP/%b\r\n" % (method, self.url, version)]
        head += [b"%b: %b\r\n" % pair for pair in self._headers_without_offer()]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.data_received(b"".join([*head, b"\r\n", self._data[head_end:]]))

    def _headers_without_offer(self) -> list[tuple[bytes, bytes]]:
        kept = [(name, value) for name, value in self.headers if name not in _OF_THE_OFFER]
        options = [value.lower() for name, value in self.headers if name == b"connection"]
        tokens = {token.strip() for value in options for token in value.split(b",")}
        return kept + [(b"connection", token) for token in sorted(tokens & {b"close", b"keep-alive"})]
