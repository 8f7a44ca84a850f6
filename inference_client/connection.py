"""One server over HTTP: all requests but live calls go out here. Translates errors and repeats what may be repeated.

Every method raises the `InferenceError` that the server answered, and `ServiceUnavailable` if the server, or a proxy in
front of it, did not answer.
"""

import random
import re
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict, Unpack

import httpx

from inference_client.errors import (
    InferenceError,
    InvalidRequest,
    QuotaExceeded,
    RouteNotFound,
    ServiceUnavailable,
    UnusableInput,
    error_from_body,
)

TRIES = 5
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 30.0
CONNECT_TIMEOUT_S = 10.0
SHORTEST_TRY_S = 0.1
_ERRNO = r"^\[Errno -?[0-9]+\] "
UNAVAILABLE = frozenset({429, 502, 503, 504})
"""Answers, from the server or a proxy, that say nothing about the request itself: it may be repeated."""


class RequestOptions(TypedDict, total=False):
    """What a request may have besides its method and path."""

    params: Mapping[str, str | list[str]] | None
    headers: Mapping[str, str]
    body: Callable[[], Iterable[bytes]]
    """Called for the bytes of each try."""
    hold_s: float | None
    """How long the server was asked to hold its answer: 0 by default, None for ever."""


class Connection:
    """Sends requests to one server with one key. Threads may share it."""

    def __init__(
        self,
        server: str,
        *,
        key: str | None,
        timeout_s: float,
        verify: bool | str | Path,
        transport: httpx.BaseTransport | None,
        sleep: Callable[[float], None],
    ) -> None:
        """`timeout_s` is how long the server may stay silent, not how long a transfer may take."""
        url = _parse_server(server)
        self.server = str(url.copy_with(username=None, password=None)).rstrip("/")
        self.sleep = sleep
        self.has_key = key is not None
        self.was_reached = False
        # How long all tries together may take until something at the server's address takes a connection. Once it did,
        # it has as long as without this limit to come back.
        self.first_contact_s: float | None = None
        self._began: float | None = None
        self._timeout_s = timeout_s
        self._http = httpx.Client(
            base_url=url,
            headers=_key_header(key),
            timeout=httpx.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s)),
            verify=tls_context(verify),
            transport=transport,
            # A redirect to another host would carry the key there.
            follow_redirects=False,
        )

    def close(self) -> None:
        """Close all connections to the server."""
        self._http.close()

    def call(self, method: str, path: str, *, repeatable: bool, **options: Unpack[RequestOptions]) -> bytes:
        """The answer's body. A `repeatable` call is tried up to `TRIES` times."""
        failures = 0
        while True:
            try:
                with self.open(method, path, **options) as response:
                    return response.read()
            except (ServiceUnavailable, QuotaExceeded) as error:
                failures += 1
                self.pause_or_raise(error, failures, tries=TRIES if repeatable and _may_pass(error) else 1)

    def pause_or_raise(self, error: InferenceError, failures: int, *, tries: int) -> None:
        """Wait before the next try: as long as the server asked, or longer with each failure; at most about 30 s.

        Raises `error` after the last try, and at once where another try cannot help.
        """
        if failures >= tries or _is_certificate_fault(error.__cause__):
            raise error
        asked_s = error.fields.get("retry_after_s", 0)
        pause_s = max(asked_s if isinstance(asked_s, int | float) else 0, FIRST_PAUSE_S * 2 ** (failures - 1))
        # Spread out: clients that lost the same server must not all come back at the same instant.
        pause_s = min(LONGEST_PAUSE_S, pause_s) * random.uniform(1, 1.25)  # noqa: S311
        left_s = self._first_contact_left_s()
        if left_s is not None and pause_s >= left_s:
            raise error
        self.sleep(pause_s)

    def _first_contact_left_s(self) -> float | None:
        """Seconds until the server counts as not there; None if there is no such limit, or it was reached."""
        if self.was_reached or self.first_contact_s is None:
            return None
        if self._began is None:
            self._began = time.monotonic()
        return self.first_contact_s - (time.monotonic() - self._began)

    def _note_contact(self, event: str, _: Mapping[str, object]) -> None:
        if event == "connection.connect_tcp.complete":
            self.was_reached = True

    @contextmanager
    def open(self, method: str, path: str, **options: Unpack[RequestOptions]) -> Iterator[httpx.Response]:
        """Send the request once and stream the answer of success. Raises the error of any other answer."""
        hold_s, body = options.get("hold_s", 0), options.get("body")
        timeout = self._http.timeout.as_dict() | {"read": None if hold_s is None else self._timeout_s + hold_s}
        if (left_s := self._first_contact_left_s()) is not None:
            timeout["connect"] = max(left_s, SHORTEST_TRY_S)
        try:
            with self._http.stream(
                method,
                path,
                params=options.get("params"),
                headers=options.get("headers"),
                content=body and body(),
                timeout=httpx.Timeout(**timeout),
                extensions={"trace": self._note_contact},
            ) as response:
                self.was_reached = True
                if not response.is_success:
                    raise self._error_of(response)
                yield response
        except httpx.RequestError as error:
            raise ServiceUnavailable(self._describe(error)) from error

    def _error_of(self, response: httpx.Response) -> Exception:
        if response.is_redirect:
            target = response.headers.get("Location", "another address")
            return UnusableInput(f"{self.server} redirects to {target}; use that as the server's URL")
        response.read()
        body = _json_object(response)
        retry_after = response.headers.get("Retry-After", "")
        # A date is the other form HTTP allows; the backoff serves those.
        if retry_after.isdecimal():
            body["retry_after_s"] = int(retry_after)
        status = response.status_code
        is_foreign = "error" not in body
        if is_foreign:
            body = self._foreign_body(response, body)
        error = error_from_body(body, status)
        # A proxy means by 429 less than the server, and some codes no class owns.
        if status in UNAVAILABLE and (is_foreign or type(error) is InferenceError):
            return ServiceUnavailable(error.detail, **error.fields)
        if type(error) is InferenceError and 400 <= status < 500:
            return InvalidRequest(error.detail, **error.fields)
        return error

    def _foreign_body(self, response: httpx.Response, body: Mapping[str, object]) -> dict[str, object]:
        said = f"{self.server} answered {response.status_code} {response.reason_phrase}".rstrip()
        foreign = {name: value for name, value in body.items() if name == "retry_after_s"}
        if response.status_code == 404:
            return {**foreign, "error": RouteNotFound.__name__, "detail": f"{said}; is it an InferenceServer's URL?"}
        return {**foreign, "detail": f"{said}; that is not InferenceServer but something in front of it"}

    def _describe(self, error: httpx.RequestError) -> str:
        if isinstance(error, httpx.ConnectTimeout | httpx.ReadTimeout | httpx.WriteTimeout):
            return f"{self.server} did not answer in time"
        if "mismatch" in str(error) and _is_certificate_fault(error):
            host = self._http.base_url.host
            return (
                f"{self.server} showed a certificate that is not for {host}. Call the server as its certificate does, "
                f"by the PROXY_DOMAIN of its operator, or ask for PROXY_DOMAIN={host} ({error})"
            )
        if _is_certificate_fault(error):
            return f"{self.server} showed a certificate that is not trusted; name its CA file with --ca ({error})"
        if isinstance(error, httpx.ConnectError):
            return f"{self.server} cannot be reached: {re.sub(_ERRNO, '', str(error))}"
        return f"the connection to {self.server} was cut: {error}"


def _may_pass(error: InferenceError) -> bool:
    """Whether time alone, and not much of it, may change the answer: of a quota only if the server says so."""
    if not isinstance(error, QuotaExceeded):
        return True
    asked_s = error.fields.get("retry_after_s")
    return isinstance(asked_s, int) and asked_s <= LONGEST_PAUSE_S


def _parse_server(server: str) -> httpx.URL:
    try:
        url = httpx.URL(server)
    except httpx.InvalidURL as error:
        raise UnusableInput(f"{server!r} is not a URL: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise UnusableInput(f"{server!r} is not a server's URL; write it like https://inference.example.org")
    return url


def _key_header(key: str | None) -> dict[str, str]:
    if key is None:
        return {}
    # httpx would show the key in its own message.
    if not key.isascii() or not key.isprintable() or key != key.strip() or not key:
        raise UnusableInput("the key holds blanks or characters that no key has")
    return {"X-API-Key": key}


def tls_context(verify: bool | str | Path) -> ssl.SSLContext | bool:
    """What httpx is to check certificates by. Raises `UnusableInput` for a CA file that cannot be used."""
    if isinstance(verify, bool):
        return verify
    try:
        return ssl.create_default_context(cafile=verify)
    except OSError as error:
        raise UnusableInput(f"the CA file {verify} cannot be used: {error.strerror or error}") from error


def _json_object(response: httpx.Response) -> dict[str, object]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _is_certificate_fault(error: BaseException | None) -> bool:
    return "CERTIFICATE_VERIFY_FAILED" in str(error)
