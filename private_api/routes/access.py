"""Turns the headers of a request into a `Caller`: a door's client, or a consumer."""

import hmac
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from ipaddress import ip_address
from typing import Annotated

from fastapi import Depends, Header, Request
from starlette.concurrency import run_in_threadpool

from contract.access import (
    ANONYMOUS,
    CALLER_ADDRESS_HEADER,
    CALLER_KEY_HEADER,
    DOOR_POLICY_HEADER,
    KEY_WANTED,
    Caller,
    DoorPolicy,
    Scope,
)
from contract.errors import Unauthenticated
from private_api.database import Database
from private_api.keys import check_key, check_keys
from private_api.lanes import Lane

TOKEN_HOLDER = Caller(None, frozenset({Scope.CONSUME}))
"""A consumer that shows the service token: it has no owner."""


def carries_token(request: Request, service_token: str) -> bool:
    """Whether the request shows the service token."""
    given = request.headers.get("authorization", "")
    return hmac.compare_digest(given.encode(), f"Bearer {service_token}".encode())


def token_checker(service_token: str) -> Callable[..., Awaitable[None]]:
    """The dependency of what only doors may call. Raises `Unauthenticated`."""

    async def check_token(request: Request) -> None:
        if not carries_token(request, service_token):
            raise Unauthenticated("the private API wants the service token: Authorization: Bearer <SERVICE_TOKEN>")

    return check_token


def consumer_resolver(holders: Lane, service_token: str) -> Callable[..., Awaitable[None]]:
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
        caller = await holders.run(check_key, key)
        caller.require(Scope.CONSUME, "This key may not run tasks: it lacks the scope consume.")
        request.state.caller = caller

    return resolve_consumer


def caller_resolver(database: Database, count_request: Callable[[Caller], None]) -> Callable[..., Awaitable[None]]:
    """The dependency of every route below `/api/`: it runs before theirs.

    Raises `Unauthenticated`, `PermissionDenied` for the key of a consumer's host, and what `count_request` raises.
    """

    async def resolve_caller(
        request: Request,
        key: Annotated[
            str | None, Header(alias=CALLER_KEY_HEADER, description="The key that the door was given.")
        ] = None,
        policy: Annotated[
            str | None,
            Header(
                alias=DOOR_POLICY_HEADER, description="What the door asks of everybody, as `key=optional models=open`."
            ),
        ] = None,
        address: Annotated[
            str | None, Header(alias=CALLER_ADDRESS_HEADER, description="The client's IP address, as the door saw it.")
        ] = None,
    ) -> None:
        door = DoorPolicy.from_header(policy)
        if key is not None:
            caller = await run_in_threadpool(check_key, database, key)
            caller.require_user()
            count_request(caller)
        elif door.requires_key:
            raise Unauthenticated(KEY_WANTED)
        else:
            caller = ANONYMOUS
        request.state.caller = replace(_at_door(caller, door), address=_ip_address(address))
        request.state.door = door

    return resolve_caller


def callers_at(door: DoorPolicy, database: Database, keys: Iterable[str | None]) -> dict[str | None, Caller]:
    """Who comes to the door with each of these keys, None being no key; without those whom it refuses."""
    callers: dict[str | None, Caller] = {}
    for key, found in check_keys(database, [key for key in keys if key is not None]).items():
        if isinstance(found, Caller) and not found.may(Scope.CONSUME):
            callers[key] = _at_door(found, door)
    if (anonymous := anonymous_at(door)) is not None:
        callers[None] = anonymous
    return callers


def _ip_address(text: str | None) -> str | None:
    """The address in the one form that it has; None for what is none."""
    try:
        return str(ip_address(text or ""))
    except ValueError:
        return None


def anonymous_at(door: DoorPolicy) -> Caller | None:
    """A caller without a key at this door; None if it takes none."""
    return None if door.requires_key else _at_door(ANONYMOUS, door)


def _at_door(caller: Caller, door: DoorPolicy) -> Caller:
    return replace(caller, scopes=caller.scopes | {Scope.MODELS}) if door.opens_models else caller


def require_changes(caller: Caller, otherwise: str) -> None:
    """Raises `PermissionDenied` unless the caller may change models at all: its own, or as an operator everybody's.

    New code, a registration or a deployment, takes the scope models in any case.
    """
    if not caller.may(Scope.OPERATE):
        caller.require(Scope.MODELS, otherwise)


async def _caller_of(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


async def _door_of(request: Request) -> DoorPolicy:
    door: DoorPolicy = request.state.door
    return door


GivenDoor = Annotated[DoorPolicy, Depends(_door_of)]
"""What the caller's door asks of everybody, as a route's parameter."""
GivenCaller = Annotated[Caller, Depends(_caller_of)]
"""The caller as a route's parameter."""
