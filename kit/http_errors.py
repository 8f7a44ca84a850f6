"""How every FastAPI app answers errors, passes request ids on, and documents errors.

Each service passes in the error classes that it answers with.
"""

import logging
import re
import secrets
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kit.errors import ServiceError
from kit.logging import request_id

logger = logging.getLogger(__name__)

REQUEST_ID_HEADER = "x-request-id"
_METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


def render_error(error: ServiceError) -> JSONResponse:
    """The answer to an error."""
    headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    if error.http_status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="InferenceServer"'
    return JSONResponse(error.to_body(), error.http_status, headers)


def loggable_path(request: Request) -> str:
    """The path of a request as a log may have it: a parameter that takes a whole path is named in place of what it
    took, which is the name of somebody's file."""
    path: str = getattr(request.scope.get("route"), "path", "(a path without a route)")
    for name, value in request.path_params.items():
        path = path.replace(f"{{{name}}}", str(value))
    return path


def install_error_handlers(
    app: FastAPI, *, unknown: type[ServiceError], invalid: type[ServiceError], no_route: type[ServiceError]
) -> None:
    """Render every error as `{"error": ..., "detail": ...}`.

    Errors of the framework become one of the given classes: `invalid` for parameters that it refuses, `no_route` for
    unknown paths and methods. `unknown` answers an unexpected exception.
    """

    async def handle_ours(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ServiceError)  # noqa: S101 - registered for this class only
        return render_error(error)

    async def handle_validation(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class only
        return render_error(invalid(_describe(error)))

    async def handle_http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class only
        if error.status_code == HTTPStatus.BAD_REQUEST:
            # The framework's answer to a body that is not even text.
            return render_error(invalid(f"body: {error.detail}"))
        headers = dict(error.headers or {})
        if "Allow" in headers:
            headers["Allow"] = ", ".join(_allowed_methods(request))
        body = no_route(f"{request.method} {request.url.path}: {error.detail}; /docs lists what there is").to_body()
        return JSONResponse(body, error.status_code, headers)

    async def handle_gone(_request: Request, _error: Exception) -> Response:
        # Nobody reads this. Without it every interrupted upload would be logged as a failure of the server.
        return Response(status_code=499)

    async def handle_unknown(request: Request, error: Exception) -> JSONResponse:
        logger.error("%s %s failed", request.method, loggable_path(request), exc_info=error)
        return render_error(unknown(request=request_id.get()))

    app.add_exception_handler(ServiceError, handle_ours)
    app.add_exception_handler(RequestValidationError, handle_validation)
    app.add_exception_handler(HTTPException, handle_http)
    app.add_exception_handler(ClientDisconnect, handle_gone)
    app.add_exception_handler(Exception, handle_unknown)


def document_errors(*classes: type[ServiceError]) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route that may answer with these errors."""
    documented: dict[int | str, dict[str, Any]] = {}
    for cls in classes:
        text = f"`{cls.__name__}`: {cls().detail}"
        example = {cls.__name__: {"value": cls().to_body()}}
        if known := documented.get(cls.http_status):
            known["description"] += f"<br>{text}"
            known["content"]["application/json"]["examples"] |= example
            continue
        documented[cls.http_status] = {
            "description": text,
            "model": cls.body,
            "content": {"application/json": {"examples": example}},
        }
    return documented


class RequestIdMiddleware:
    """Takes the caller's X-Request-ID or makes one. Every log line and the answer carry it.

    Pure ASGI, because Starlette's BaseHTTPMiddleware would hide the client's disconnect from streaming routes.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(REQUEST_ID_HEADER.encode(), b"").decode("latin-1")
        current = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        token = request_id.set(current)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                others = [pair for pair in message["headers"] if pair[0].lower() != REQUEST_ID_HEADER.encode()]
                message["headers"] = [*others, (REQUEST_ID_HEADER.encode(), current.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            request_id.reset(token)


def _allowed_methods(request: Request) -> list[str]:
    """Every method that there is at the path. The framework names those of one route, of which each has its own."""
    routes: list[BaseRoute] = request.app.routes
    return [
        method
        for method in _METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    ]


def _describe(error: RequestValidationError) -> str:
    parts = []
    for fault in error.errors():
        where = ".".join(str(part) for part in fault["loc"][1:]) or str(fault["loc"][0])
        if fault["type"] == "extra_forbidden":
            parts.append(f"unknown parameter {where!r}")
        else:
            parts.append(f"{where}: {fault['msg']}")
    return "; ".join(parts)
