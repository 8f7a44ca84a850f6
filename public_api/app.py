"""The public API as an ASGI app."""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI, Request
from fastapi.responses import RedirectResponse

from contract.access import DoorPolicy
from contract.errors import (
    InferenceError,
    InvalidRequest,
    PermissionDenied,
    QuotaExceeded,
    RouteNotFound,
    ServiceUnavailable,
    Unauthenticated,
)
from kit.http_docs import install_docs, name_operation
from kit.http_errors import RequestIdMiddleware, document_errors, install_error_handlers
from public_api.cors import allow_origins
from public_api.help import install_help
from public_api.polls import PolledTogether, Polls
from public_api.relay import Relay
from public_api.routes.deployments import deployment_routes
from public_api.routes.events import event_routes
from public_api.routes.files import file_routes
from public_api.routes.health import health_routes
from public_api.routes.keys import key_routes
from public_api.routes.models import model_routes
from public_api.routes.overview import overview_routes
from public_api.routes.parameters import KEY_SCHEMES
from public_api.routes.tasks import task_routes
from public_api.sites import SiteGuard

logger = logging.getLogger(__name__)

_DESCRIPTION = """Post a zip to a model, fetch a zip.

1. `POST /api/models/` registers a model: a Docker image, and a zip with its static content if it has any.
2. `POST /api/tasks/` submits a zip to it and answers the uid of the task.
3. `GET /api/tasks/{uid}/status` says how the task stands; with `wait=60` the answer is held until it ends.
4. `GET /api/tasks/{uid}/output` is the output as a zip, `GET /api/tasks/{uid}/logs` what the container wrote.

Every error is JSON: `error` (its name) and `detail`. 429, 502, 503 and 504 say nothing of a task: ask again, as
`Retry-After` says where it is given; `QuotaExceeded` without it (429) lasts until somebody makes room. While the server
is restarted, a proxy in front of it may answer in plain text. Where the server asks for a key, press *Authorize*.

[Help](help) has tutorials, how-tos and the reference.
"""
_OPEN = """
**This server is open: no key is asked for.** Whoever reaches it may submit tasks{models}. Whoever knows the uid of a
task that was submitted without a key may read, cancel and delete it. `REQUIRE_API_KEY=1` requires keys.
"""
_OPEN_TO_MODELS = " and register models, which are programs that run on its hosts"
_EVERY_KEY = "ALLOW_PUBLIC_POST_MODEL is set: every key may register models, which are programs that run on its hosts"
_TAGS = [
    {"name": "tasks", "description": "Submit a zip to a model, follow the task, fetch its output."},
    {"name": "models", "description": "Register models, and list those that there are."},
    {"name": "deployments", "description": "Keep a model warm in containers that answer live calls over gRPC."},
    {"name": "overview", "description": "What runs on this server, and what waits for what."},
    {"name": "keys", "description": "Who the caller is, and the keys that callers show."},
    {"name": "health", "description": "Whether the server is alive, and ready."},
]


def create_app(
    *,
    private_url: str,
    service_token: str,
    policy: DoorPolicy,
    cors_origins: Sequence[str] = (),
    hosts: Sequence[str] = (),
    behind_proxy: bool = False,
) -> FastAPI:
    """The door, known as `hosts`, in front of the private API at `private_url`, which speaks plain HTTP.

    `behind_proxy` says that clients reach it through a proxy alone, which names their addresses.
    """
    relay = Relay(private_url, service_token, policy, behind_proxy=behind_proxy)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        _warn_of_open_mode(policy)
        yield
        await relay.close()

    app = FastAPI(
        title="InferenceServer",
        description=_describe(policy),
        openapi_tags=_TAGS,
        generate_unique_id_function=name_operation,
        docs_url=None,
        redoc_url=None,
        # A redirect would make clients send a large body twice.
        redirect_slashes=False,
        lifespan=lifespan,
    )
    install_error_handlers(app, unknown=InferenceError, invalid=InvalidRequest, no_route=RouteNotFound)
    install_docs(app)
    install_help(app)
    guard = SiteGuard(hosts, cors_origins)
    app.add_middleware(PolledTogether, polls=Polls(relay), guard=guard)
    app.add_middleware(RequestIdMiddleware)
    if cors_origins:
        allow_origins(app, cors_origins)

    @app.get("/", include_in_schema=False)
    async def show_docs(request: Request) -> RedirectResponse:
        return RedirectResponse(f"{request.scope.get('root_path', '')}/docs")

    app.include_router(health_routes(relay))
    errors = document_errors(
        Unauthenticated, PermissionDenied, InvalidRequest, QuotaExceeded, ServiceUnavailable, InferenceError
    )
    guards = [Depends(guard), *KEY_SCHEMES]
    for build in (model_routes, deployment_routes, task_routes, file_routes, overview_routes, event_routes, key_routes):
        app.include_router(build(relay), dependencies=guards, responses=errors)
    return app


def _describe(policy: DoorPolicy) -> str:
    if policy.requires_key:
        return _DESCRIPTION
    return _DESCRIPTION + _OPEN.format(models=_OPEN_TO_MODELS if policy.opens_models else "")


def _warn_of_open_mode(policy: DoorPolicy) -> None:
    if not policy.requires_key:
        logger.warning(
            "open mode: no key is required. Whoever reaches this port may submit tasks%s, and whoever knows the uid of "
            "a task that was submitted without a key may read, cancel and delete it. REQUIRE_API_KEY=1 requires keys",
            _OPEN_TO_MODELS if policy.opens_models else "",
        )
    elif policy.opens_models:
        logger.warning(_EVERY_KEY)
