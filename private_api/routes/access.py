"""Who calls: the one place where a door's headers become a `Caller`."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Annotated

from fastapi import Depends, Header, Request
from starlette.concurrency import run_in_threadpool

from contract.access import CALLER_KEY_HEADER, DOOR_POLICY_HEADER, DoorPolicy, Scope
from contract.errors import Unauthenticated
from private_api.callers import ANONYMOUS, Caller
from private_api.database import Database
from private_api.keys import check_key


def caller_resolver(database: Database) -> Callable[..., Awaitable[None]]:
    """The dependency of every route below `/api/`: it runs before theirs. Raises `Unauthenticated`."""

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
