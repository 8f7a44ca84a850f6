"""Which pages of other origins a browser lets use the server (CORS), and what they may read of its answers."""

from collections.abc import Iterable
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import FastAPI
from pydantic import BeforeValidator
from starlette.middleware.cors import CORSMiddleware

_METHODS = ("GET", "HEAD", "POST", "PATCH", "DELETE")
_REQUEST_HEADERS = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-None-Match",
    "If-Range",
    "Last-Event-ID",
    "Range",
    "X-API-Key",
    "X-Request-ID",
)
_ANSWER_HEADERS = (
    "Accept-Ranges",
    "Content-Disposition",
    "Content-Length",
    "Content-Range",
    "ETag",
    "Repr-Digest",
    "Retry-After",
    "WWW-Authenticate",
    "X-Request-ID",
    "X-Task-Warnings",
)
_MAX_AGE_S = 600
_DEFAULT_PORTS = {"http": 80, "https": 443}


def parse_origins(text: str) -> tuple[str, ...]:
    """The origins of a text that separates them by commas or spaces. Raises `ValueError` naming the one at fault."""
    return tuple(dict.fromkeys(_parse_origin(each) for each in text.replace(",", " ").split()))


Origins = Annotated[tuple[str, ...], BeforeValidator(parse_origins)]
"""Origins, as in `https://viewer.example.org http://localhost:5173`."""


def _parse_origin(text: str) -> str:
    fault = f"{text!r} is not an origin"
    if text == "*":
        raise ValueError(f"{fault}: name each; for `*`, every page on the web could use this server through a browser")
    try:
        parts = urlsplit(text.lower())
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{fault}: {error}") from error
    if parts.scheme not in _DEFAULT_PORTS or not host or "@" in parts.netloc:
        raise ValueError(f"{fault}, such as https://viewer.example.org or http://localhost:5173")
    if "*" in host:
        raise ValueError(f"{fault}: stars stand for nothing here; name each")
    if port == _DEFAULT_PORTS[parts.scheme]:
        raise ValueError(f"{fault}: leave out :{port}, as browsers do")
    origin = f"{parts.scheme}://{parts.netloc}"
    if text.lower() != origin:
        raise ValueError(f"{fault}: it ends after the host and the port, as in {origin}")
    return origin


def allow_origins(app: FastAPI, origins: Iterable[str]) -> None:
    """Let pages of these origins call every route. No cookie is sent or read: callers show keys, in headers."""
    app.add_middleware(
        CORSMiddleware,
        allow_origins=list(origins),
        allow_methods=_METHODS,
        allow_headers=_REQUEST_HEADERS,
        expose_headers=_ANSWER_HEADERS,
        max_age=_MAX_AGE_S,
    )
