"""Who calls: keys are judged by the private API and its answers remembered for a moment; replicas show a token."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from contract.errors import InferenceError, PermissionDenied, ServiceUnavailable, Unauthenticated
from contract.gateway_client import GatewayClient
from contract.tokens import TokenRefused, replica_key, verify_token
from grpc_gateway.callers import ANONYMOUS, Caller
from grpc_gateway.statuses import refusal_of
from grpc_gateway.table import Table
from grpc_gateway.texts import KEY_WANTED, NOT_A_KEY, NOT_A_LIVE_REPLICA, SCOPE_WANTED, SILENT

GOOD_FOR_S = 30.0
BAD_FOR_S = 5.0
STALE_FOR_S = 600.0
"""How long a key that was good is taken for good while the private API cannot be asked: models are warm then, too."""
_MOST = 10_000
_LONGEST = 512
"""Characters of a key: a real one has less than 100."""
_PATIENCE_S = 5.0
"""For the private API's answer."""
_MOST_QUESTIONS = 32


@dataclass(slots=True)
class _Known:
    caller: Caller | None
    error: InferenceError | None
    asked_at: float


class Keys:
    """The callers behind keys. It belongs to one event loop and never holds more than a bounded number."""

    def __init__(self, client: GatewayClient, table: Table, service_token: str, *, requires_key: bool) -> None:
        self._client = client
        self._table = table
        self._replica_key = replica_key(service_token)
        self._requires_key = requires_key
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._asking: dict[str, asyncio.Task[_Known]] = {}
        self._questions = asyncio.Semaphore(_MOST_QUESTIONS)

    async def caller_of(self, key: str | None) -> Caller:
        """Who calls with this key, or without one. Raises `Refusal` where they may not."""
        if key is None:
            if self._requires_key:
                raise refusal_of(Unauthenticated(KEY_WANTED))
            return ANONYMOUS
        # Keys look like is_<id>_<secret>; only tokens have a dot.
        caller = self._replica(key) if "." in key else await self._ask(key)
        if not caller.may_submit:
            raise refusal_of(PermissionDenied(SCOPE_WANTED))
        return caller

    async def check(self, key: str) -> Caller:
        """Who a key stands for, whatever its scopes. Raises `Refusal`."""
        return await self._ask(key)

    def _replica(self, token: str) -> Caller:
        """A replica calls with the rights of the deployment's owner."""
        try:
            claims = verify_token(self._replica_key, token)
        except TokenRefused as error:
            raise refusal_of(Unauthenticated(str(error))) from error
        lives, owner = self._table.owner_of_replica(claims.subject)
        if not lives:
            raise refusal_of(Unauthenticated(NOT_A_LIVE_REPLICA))
        return Caller(owner, ANONYMOUS.scopes)

    async def _ask(self, key: str) -> Caller:
        if len(key) > _LONGEST or not (key.isascii() and key.isprintable()):
            raise refusal_of(Unauthenticated(NOT_A_KEY))
        known = self._known.get(key)
        now = asyncio.get_running_loop().time()
        if known is None or now - known.asked_at > (GOOD_FOR_S if known.caller else BAD_FOR_S):
            known = await self._question(key)
        if known.caller is None:
            raise refusal_of(known.error or Unauthenticated())
        return known.caller

    async def _question(self, key: str) -> _Known:
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.create_task(self._put(key))
            task.add_done_callback(lambda _task: self._asking.pop(key, None))
        # Shared by all calls with this key, and not to be cancelled with one of them.
        return await asyncio.shield(task)

    async def _put(self, key: str) -> _Known:
        """Ask the private API and remember what it says."""
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(_PATIENCE_S), self._questions:
                view = await self._client.check_key(key)
            known = _Known(Caller(view.owner, frozenset(view.scopes)), None, now)
        except (ServiceUnavailable, TimeoutError) as error:
            old = self._known.get(key)
            if old is not None and old.caller is not None and now - old.asked_at < STALE_FOR_S:
                return old
            return _Known(None, error if isinstance(error, ServiceUnavailable) else ServiceUnavailable(SILENT), now)
        except InferenceError as error:
            known = _Known(None, error, now)
        self._known[key] = known
        self._known.move_to_end(key)
        while len(self._known) > _MOST:
            self._known.popitem(last=False)
        return known
