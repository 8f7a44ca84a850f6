"""Finds out who calls: the private API judges keys, its answers are remembered for a moment; replicas show a token."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum

from contract.access import ANONYMOUS, KEY_WANTED, NOT_A_KEY, Caller, Scope, key_id_of
from contract.errors import InferenceError, PermissionDenied, ServiceUnavailable, Unauthenticated
from contract.gateway_client import GatewayClient
from contract.tokens import TokenRefused, replica_key, verify_token
from grpc_gateway.calls import Call
from grpc_gateway.refusals import DEPLOYER_MAY_NOT, INSIDE_ONLY, NOT_A_LIVE_REPLICA, SILENT
from grpc_gateway.statuses import StatusError, status_error_of
from grpc_gateway.table import Table

GOOD_FOR_S = 30.0
BAD_FOR_S = 5.0
STALE_FOR_S = 600.0
"""How long a key that was good stays good while the private API cannot be asked: warm models still answer then."""
_MOST = 10_000
_LONGEST = 512
"""Characters of a key; a real one has fewer than 100."""
_PATIENCE_S = 5.0
"""How long the private API may take to answer."""
_MOST_QUESTIONS = 32


class Access(Enum):
    """What a caller must show for a call, as far as keys go."""

    OPEN = "open"
    """Nothing."""
    KEY = "key"
    """A valid key where keys are required: the call tells names, or reads what there is."""
    SUBMIT = "submit"
    """A key that may submit: the call has a model compute."""


@dataclass(slots=True)
class _Known:
    caller: Caller | None
    error: InferenceError | None
    asked_at: float


class Keys:
    """The callers behind keys. It belongs to one event loop and remembers a bounded number of keys."""

    def __init__(self, client: GatewayClient, table: Table, service_token: str, *, requires_key: bool) -> None:
        self._client = client
        self._table = table
        self._replica_key = replica_key(service_token)
        self.requires_key = requires_key
        """Whether a call without a key is refused."""
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._asking: dict[str, asyncio.Task[_Known]] = {}
        self._questions = asyncio.Semaphore(_MOST_QUESTIONS)

    async def caller_of(self, key: str | None, access: Access, *, is_inside: bool = False) -> Caller:
        """The caller with this key, or without one. Raises `StatusError` if it lacks what `access` asks for.

        `is_inside` as `Call` has it.
        """
        if access is Access.OPEN:
            return ANONYMOUS
        if key is None:
            if self.requires_key:
                raise status_error_of(Unauthenticated(KEY_WANTED))
            return ANONYMOUS
        # Keys look like is_<id>_<secret>; only tokens have a dot.
        caller = self._replica(key, is_inside=is_inside) if "." in key else await self._ask(key)
        try:
            if access is Access.SUBMIT:
                caller.require_submit()
            caller.require_user()
        except PermissionDenied as error:
            raise status_error_of(error) from error
        return caller

    def knows(self, call: Call, access: Access) -> bool:
        """Whether it is certain without asking that `caller_of` lets this caller through."""
        key = call.headers.key
        if access is Access.OPEN or key is None:
            return access is Access.OPEN or not self.requires_key
        if "." in key:
            return self._knows_replica(key, is_inside=call.is_inside)
        known = self._known.get(key)
        if known is None or known.caller is None or asyncio.get_running_loop().time() - known.asked_at > GOOD_FOR_S:
            return False
        may = access is not Access.SUBMIT or known.caller.may(Scope.SUBMIT)
        return may and known.caller.key_id not in self._table.ended_keys

    def _replica(self, token: str, *, is_inside: bool) -> Caller:
        """The owner of the replica's deployment, who may submit."""
        try:
            claims = verify_token(self._replica_key, token)
        except TokenRefused as error:
            raise status_error_of(Unauthenticated(str(error))) from error
        if claims.is_inside and not is_inside:
            raise status_error_of(Unauthenticated(INSIDE_ONLY))
        route = self._table.route_of_replica(claims.subject)
        if route is None:
            raise status_error_of(Unauthenticated(NOT_A_LIVE_REPLICA))
        if not route.may_call:
            raise status_error_of(Unauthenticated(DEPLOYER_MAY_NOT))
        return Caller(route.owner, ANONYMOUS.scopes)

    def _knows_replica(self, token: str, *, is_inside: bool) -> bool:
        try:
            self._replica(token, is_inside=is_inside)
        except StatusError:
            return False
        return True

    async def _ask(self, key: str) -> Caller:
        if len(key) > _LONGEST or not (key.isascii() and key.isprintable()):
            raise status_error_of(Unauthenticated(NOT_A_KEY))
        known = self._known.get(key)
        now = asyncio.get_running_loop().time()
        if known is not None and known.caller is not None and known.caller.key_id in self._table.ended_keys:
            # The private API says why.
            known = None
        if known is None or now - known.asked_at > (GOOD_FOR_S if known.caller else BAD_FOR_S):
            known = await self._question(key)
        if known.caller is None:
            raise status_error_of(known.error or Unauthenticated())
        return known.caller

    async def _question(self, key: str) -> _Known:
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.create_task(self._put(key))
            task.add_done_callback(lambda _task: self._asking.pop(key, None))
        # Shared by all calls with this key, and not to be cancelled with one of them.
        return await asyncio.shield(task)

    async def _put(self, key: str) -> _Known:
        """Ask the private API and remember its answer."""
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(_PATIENCE_S), self._questions:
                view = await self._client.check_key(key)
            known = _Known(Caller(view.owner, frozenset(view.scopes), key_id_of(key)), None, now)
        except (ServiceUnavailable, TimeoutError) as error:
            old = self._known.get(key)
            is_good = old is not None and old.caller is not None and old.caller.key_id not in self._table.ended_keys
            if old is not None and is_good and now - old.asked_at < STALE_FOR_S:
                return old
            return _Known(None, error if isinstance(error, ServiceUnavailable) else ServiceUnavailable(SILENT), now)
        except InferenceError as error:
            known = _Known(None, error, now)
        self._known[key] = known
        self._known.move_to_end(key)
        while len(self._known) > _MOST:
            self._known.popitem(last=False)
        return known
