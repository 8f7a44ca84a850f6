"""A deployment in one gateway process: its replicas, the calls that wait for one, and its counters."""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import grpc

from contract.deployments import DeploymentLoad, DeploymentStatus, Route
from grpc_gateway.admission import CallClass, Limits
from grpc_gateway.background import Background
from grpc_gateway.method_types import MethodTypes
from grpc_gateway.refusals import not_shared_with
from grpc_gateway.replica_choice import choose
from grpc_gateway.replicas import Replica
from grpc_gateway.statuses import StatusError

FAILING_PATIENCE_S = 10.0
"""How long a call waits for a deployment whose replicas end by themselves: the next may be about to be ready."""
_REVIEW_S = 0.5
_LOOK_S = 2.0
"""How often a replica that left is probed while calls are open on it."""
_SILENCES = 2
"""After this many unanswered probes in a row it counts as gone."""
_ANSWER_MARGIN_S = 0.25
"""How long before its deadline a waiting call is refused with the reason: later it would only see its time run out."""


@dataclass(eq=False)
class _Waiter:
    affinity: str
    since: float
    gives_up_at: float
    got: "asyncio.Future[Replica]"
    timer: asyncio.TimerHandle | None = field(default=None)


class Deployment:
    """An entry of the routing table; it lives as long as the deployment does. It belongs to one event loop."""

    def __init__(self, route: Route, limits: Limits, demand: Callable[[str], None]) -> None:
        self._limits = limits
        self._demand = demand
        self._all: dict[str, Replica] = {}
        self._leaving: dict[str, Replica] = {}
        self._waiting: dict[CallClass, dict[_Waiter, None]] = {CallClass.INFER: {}, CallClass.STREAM: {}}
        self._background = Background()
        self._in_flight = 0
        self._last_call: float | None = None
        self.replicas: list[Replica] = []
        """The replicas that get calls."""
        self.method_types = MethodTypes()
        self.update(route)

    def require_use(self, owner: str | None) -> None:
        """Raises `StatusError` unless the deployment answers calls of this owner, None being whoever shows no key."""
        if self.route.users is not None and owner not in self.route.users:
            raise not_shared_with(self.id)

    def update(self, route: Route) -> None:
        """Take over what the routing table says."""
        self.route = route
        self.id = route.human_readable_id
        serving = route.serving
        self.call_timeout_s = serving.call_timeout_s
        self.restrictions = {category: key for key in serving.restricted_keys for category in key.categories}
        self._most = {
            CallClass.INFER: self._limits.share(serving.max_in_flight),
            CallClass.STREAM: self._limits.share(serving.max_streams),
        }
        self._most_queued = self._limits.share(serving.max_queued) if serving.max_queued else 0
        named = {backend.uid: backend for backend in route.backends}
        for uid in [uid for uid in self._all if uid not in named]:
            self._leaving[uid] = self._all.pop(uid)
            watch = self._watch_leaving(self._leaving[uid])
            self._background.start(watch, f"replica={uid[:12]}: watching it leave")
        for uid, backend in named.items():
            if uid not in self._all:
                self._all[uid] = self._leaving.pop(uid) if uid in self._leaving else Replica(backend)
        self.replicas = list(self._all.values())
        self.method_types.follow(self.replicas)
        self._close_idle()
        for call_class in self._waiting:
            self._serve_waiting(call_class)

    @property
    def _queued(self) -> int:
        return sum(map(len, self._waiting.values()))

    @property
    def is_ready(self) -> bool:
        """Whether calls are answered: now, or by a replica that the first call starts."""
        return bool(self.replicas) or self.route.status is DeploymentStatus.IDLE

    async def acquire(
        self, call_class: CallClass, affinity: str, time_remaining_s: float | None, avoid: Collection[Replica] = ()
    ) -> Replica:
        """A replica with room for one more call, as soon as there is one; the call ends with `release`.

        Raises `StatusError` if too many calls wait already, or no replica comes in time.
        """
        now = asyncio.get_running_loop().time()
        self._last_call = now
        # A free place is one that no call waits for: waiting calls were served when it became free.
        replica = choose(self.replicas, call_class, self._most[call_class], affinity=affinity, avoid=avoid, now=now)
        if replica is not None:
            self._take(replica, call_class)
            return replica
        if avoid and all(replica in avoid for replica in self.replicas):
            raise StatusError(
                grpc.StatusCode.UNAVAILABLE,
                f"No replica of {self.id!r} can be reached at "
                f"{', '.join(replica.address for replica in avoid)}: nothing that speaks gRPC answers there.",
            )
        self._check_queue(call_class)
        return await self._wait(call_class, affinity, time_remaining_s, now)

    def release(self, replica: Replica, call_class: CallClass) -> None:
        """Give back what `acquire` gave: the call is over."""
        replica.open[call_class] -= 1
        self._in_flight -= 1
        self._last_call = asyncio.get_running_loop().time()
        if self._waiting[call_class]:
            self._serve_waiting(call_class)
        if self._leaving:
            self._close_idle()

    def load(self, now: float) -> DeploymentLoad:
        """What the gateway reports of it; `now` is on the event loop's clock."""
        idle_s = None if self._last_call is None else max(0.0, now - self._last_call)
        return DeploymentLoad(in_flight=self._in_flight, queued=self._queued, idle_s=idle_s)

    def open_calls(self) -> dict[str, int]:
        """Calls open per replica; one that left is included while it has any."""
        return {uid: replica.in_flight for uid, replica in (self._all | self._leaving).items()}

    def remove(self) -> None:
        """The deployment was removed: refuse the calls that wait, and close each channel once its calls are over."""
        for waiter in [waiter for waiting in self._waiting.values() for waiter in waiting]:
            if not waiter.got.done():
                waiter.got.set_exception(StatusError(grpc.StatusCode.UNAVAILABLE, f"{self.id!r} was just removed."))
        self.update(self.route.model_copy(update={"backends": []}))

    async def abandon(self) -> None:
        """Close every channel now."""
        everyone = [*self._all.values(), *self._leaving.values()]
        await asyncio.gather(*(replica.close() for replica in everyone))
        await self._background.cancel()

    def _take(self, replica: Replica, call_class: CallClass) -> None:
        replica.open[call_class] += 1
        self._in_flight += 1

    def _check_queue(self, call_class: CallClass) -> None:
        if call_class is CallClass.STREAM and self.replicas:
            raise StatusError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"Every replica of {self.id!r} has {self._most[call_class]} streams open already (max_streams). "
                "Try again later.",
            )
        if self._queued >= self._most_queued:
            raise StatusError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{self._queued} calls wait for {self.id!r} already (max_queued). Try again later.",
            )

    async def _wait(self, call_class: CallClass, affinity: str, time_remaining_s: float | None, now: float) -> Replica:
        loop = asyncio.get_running_loop()
        patience = self.route.serving.start_timeout_s
        if time_remaining_s is not None:
            patience = min(patience, time_remaining_s - min(_ANSWER_MARGIN_S, time_remaining_s / 4))
        waiter = _Waiter(affinity, now, now + patience, loop.create_future())
        self._waiting[call_class][waiter] = None
        self._review(waiter)
        try:
            return await waiter.got
        except asyncio.CancelledError:
            if waiter.got.done() and not waiter.got.cancelled() and waiter.got.exception() is None:
                # It was given a replica at the moment it was cancelled.
                self.release(waiter.got.result(), call_class)
            raise
        finally:
            self._waiting[call_class].pop(waiter, None)
            if waiter.timer is not None:
                waiter.timer.cancel()

    def _review(self, waiter: _Waiter) -> None:
        """Ask for a replica while there is none, and refuse the call once it has waited long enough."""
        if waiter.got.done():
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        if not self.replicas:
            is_failing = self.route.status is DeploymentStatus.FAILING
            if now >= waiter.gives_up_at or (is_failing and now >= waiter.since + FAILING_PATIENCE_S):
                waiter.got.set_exception(self._why_none(now - waiter.since))
                return
            self._demand(self.id)
        pause = min(_REVIEW_S, waiter.gives_up_at - now) if now < waiter.gives_up_at else _REVIEW_S
        waiter.timer = loop.call_later(pause, self._review, waiter)

    def _why_none(self, waited_s: float) -> StatusError:
        detail = f": {self.route.detail}" if self.route.detail else ""
        if self.route.status is DeploymentStatus.FAILING:
            text = f"The replicas of {self.id!r} end by themselves{detail}"
        else:
            text = f"No replica of {self.id!r} became ready within {waited_s:.1f} s{detail}"
        return StatusError(grpc.StatusCode.UNAVAILABLE, text)

    def _serve_waiting(self, call_class: CallClass) -> None:
        """Hand free places to waiting calls, first come, first served."""
        now = asyncio.get_running_loop().time()
        waiting = self._waiting[call_class]
        while waiting:
            waiter = next(iter(waiting))
            if not waiter.got.done():
                most = self._most[call_class]
                replica = choose(self.replicas, call_class, most, affinity=waiter.affinity, avoid=(), now=now)
                if replica is None:
                    return
                self._take(replica, call_class)
                waiter.got.set_result(replica)
            del waiting[waiter]

    def _close_idle(self) -> None:
        for uid in [uid for uid, replica in self._leaving.items() if not replica.in_flight]:
            self._background.start(self._leaving.pop(uid).close(), f"replica={uid[:12]}: closing its channel")

    async def _watch_leaving(self, replica: Replica) -> None:
        """Most replicas leave to finish their calls. One whose host is gone closes no connection: end its calls."""
        silences = 0
        while self._leaving.get(replica.uid) is replica:
            silences = 0 if await replica.is_there() else silences + 1
            if silences == _SILENCES:
                await replica.give_up()
                return
            await asyncio.sleep(_LOOK_S)
