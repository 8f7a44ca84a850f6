"""Who calls: the one place where headers become a `Caller`, of a door's client or of a consumer."""

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Annotated

from fastapi import Depends, Header, Request
from starlette.concurrency import run_in_threadpool

from contract.access import CALLER_KEY_HEADER, DOOR_POLICY_HEADER, DoorPolicy, Scope
from contract.errors import PermissionDenied, Unauthenticated
from private_api.callers import ANONYMOUS, TOKEN_HOLDER, Caller
from private_api.database import Database
from private_api.keys import check_key


def carries_token(request: Request, service_token: str) -> bool:
    """Whether the request proves itself with the service token."""
    given = request.headers.get("authorization", "")
    return hmac.compare_digest(given.encode(), f"Bearer {service_token}".encode())


def token_checker(service_token: str) -> Callable[..., Awaitable[None]]:
    """The dependency of what only doors may call. Raises `Unauthenticated`."""

    async def check_token(request: Request) -> None:
        if not carries_token(request, service_token):
            raise Unauthenticated("the private API wants the service token: Authorization: Bearer <SERVICE_TOKEN>")

    return check_token


def consumer_resolver(database: Database, service_token: str) -> Callable[..., Awaitable[None]]:
    """The dependency of every route below `/internal/`. Raises `Unauthenticated`, `PermissionDenied`."""

    async def resolve_consumer(request: Request) -> None:
        if carries_token(request, service_token):
            request.state.caller = TOKEN_HOLDER
            return
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or not key.startswith("is_"):
            raise Unauthenticated(
                "the private API wants the service token, or a key with the scope consume: Authorization: Bearer ..."
            )
        caller = await run_in_threadpool(check_key, database, key)
        caller.require(Scope.CONSUME, "This key may not run tasks: it lacks the scope consume.")
        request.state.caller = caller

    return resolve_consumer


def caller_resolver(database: Database) -> Callable[..., Awaitable[None]]:
    """The dependency of every route below `/api/`: it runs before theirs.

    Raises `Unauthenticated`, and `PermissionDenied` for the key of a consumer's host.
    """

    async def resolve_caller(
        request: Request,
        key: Annotated[
            str | None, Header(alias=CALLER_KEY_HEADER, description="The key that the door was given.")
        ] = None,
        policy: Annotated[
            str | None, Header(alias=DOOR_POLICY_HEADER, description="What the door asks of everybody.")
        ] = None,
    ) -> None:
        door = DoorPolicy.from_header(policy)
        if key is not None:
            caller = await run_in_threadpool(check_key, database, key)
            if Scope.CONSUME in caller.scopes:
                raise PermissionDenied(
                    "This key has the scope consume: it is for a consumer's host, and opens no door."
                )
        elif door.requires_key:
            raise Unauthenticated("this server wants a key: X-API-Key: <key>, or Authorization: Bearer <key>")
        else:
            caller = ANONYMOUS
        if door.opens_models:
            caller = replace(caller, scopes=caller.scopes | {Scope.MODELS})
        request.state.caller = caller

    return resolve_caller


async def _caller_of(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


GivenCaller = Annotated[Caller, Depends(_caller_of)]
"""The caller as a route's parameter."""
