"""A deployment in one gateway process: its replicas, who waits for one, and what it counts."""

import asyncio
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass, field
from typing import Any

import grpc

from contract.deployments import DeploymentLoad, DeploymentStatus, Route
from grpc_gateway.kinds import KnownKinds
from grpc_gateway.lanes import Lane, Limits
from grpc_gateway.replicas import Replica, choose
from grpc_gateway.statuses import Refusal

FAILING_PATIENCE_S = 10.0
"""How long a call waits for a deployment whose replicas end by themselves: the next one may be about to be ready."""
_REVIEW_S = 0.5
_LOOK_S = 2.0
"""How often a replica that left is asked whether it is still there, while calls are open on it."""
_SILENCES = 2
"""So many times in a row it may not answer that."""
_ANSWER_MARGIN_S = 0.25
"""So long before its deadline a call that waits is told why: after it, it would only learn that time is up."""


@dataclass(eq=False)
class _Waiter:
    affinity: str
    since: float
    gives_up_at: float
    got: "asyncio.Future[Replica]"
    timer: asyncio.TimerHandle | None = field(default=None)


class Deployment:
    """One entry of the routing table that lives as long as the deployment does. It belongs to one event loop."""

    def __init__(self, route: Route, limits: Limits, demand: Callable[[str], None]) -> None:
        self._limits = limits
        self._demand = demand
        self._all: dict[str, Replica] = {}
        self._leaving: dict[str, Replica] = {}
        self._waiting: dict[Lane, dict[_Waiter, None]] = {Lane.INFER: {}, Lane.STREAM: {}}
        self._tasks: set[asyncio.Task[None]] = set()
        self._in_flight = 0
        self._last_call: float | None = None
        self.replicas: list[Replica] = []
        """Those that get calls."""
        self.kinds = KnownKinds()
        self.update(route)

    def update(self, route: Route) -> None:
        """Take over what the routing table says now."""
        self.route = route
        self.id = route.human_readable_id
        serving = route.serving
        self.call_timeout_s = serving.call_timeout_s
        self.restrictions = {category: key for key in serving.restricted_keys for category in key.categories}
        self._most = {
            Lane.INFER: self._limits.share(serving.max_in_flight),
            Lane.STREAM: self._limits.share(serving.max_streams),
        }
        self._most_queued = self._limits.share(serving.max_queued) if serving.max_queued else 0
        named = {backend.uid: backend for backend in route.backends}
        for uid in [uid for uid in self._all if uid not in named]:
            self._leaving[uid] = self._all.pop(uid)
            self._start(self._watch_leaving(self._leaving[uid]))
        for uid, backend in named.items():
            if uid not in self._all:
                self._all[uid] = self._leaving.pop(uid) if uid in self._leaving else Replica(backend)
        self.replicas = list(self._all.values())
        self.kinds.follow(self.replicas)
        self._close_idle()
        for lane in self._waiting:
            self._serve_waiting(lane)

    @property
    def _queued(self) -> int:
        return sum(map(len, self._waiting.values()))

    @property
    def is_ready(self) -> bool:
        """Whether calls are answered: now, or by a replica that the first call starts."""
        return bool(self.replicas) or self.route.status is DeploymentStatus.IDLE

    async def acquire(
        self, lane: Lane, affinity: str, time_remaining_s: float | None, avoid: Collection[Replica] = ()
    ) -> Replica:
        """A replica with room for one more call, once there is one; every one is followed by `release`.

        Raises `Refusal` where too many wait already, or no replica comes in time.
        """
        now = asyncio.get_running_loop().time()
        self._last_call = now
        # A place that is free is one that nobody waits for: those were served when it became free.
        replica = choose(self.replicas, lane, self._most[lane], affinity=affinity, avoid=avoid, now=now)
        if replica is not None:
            self._take(replica, lane)
            return replica
        if avoid and all(replica in avoid for replica in self.replicas):
            raise Refusal(
                grpc.StatusCode.UNAVAILABLE,
                f"No replica of {self.id!r} can be reached at "
                f"{', '.join(replica.address for replica in avoid)}: nothing that speaks gRPC answers there.",
            )
        self._check_queue(lane)
        return await self._wait(lane, affinity, time_remaining_s, now)

    def release(self, replica: Replica, lane: Lane) -> None:
        """The call that `acquire` was for is over."""
        replica.open[lane] -= 1
        self._in_flight -= 1
        self._last_call = asyncio.get_running_loop().time()
        if self._waiting[lane]:
            self._serve_waiting(lane)
        if self._leaving:
            self._close_idle()

    def load(self, now: float) -> DeploymentLoad:
        """What gateways report of it; `now` on the event loop's clock."""
        idle_s = None if self._last_call is None else max(0.0, now - self._last_call)
        return DeploymentLoad(in_flight=self._in_flight, queued=self._queued, idle_s=idle_s)

    def open_calls(self) -> dict[str, int]:
        """Calls open per replica; one that left is named as long as it has any."""
        return {uid: replica.in_flight for uid, replica in (self._all | self._leaving).items()}

    def knows(self, uid: str) -> bool:
        """Whether this replica is ready, or leaves while it still answers calls of this process."""
        return uid in self._all or uid in self._leaving

    def remove(self) -> None:
        """The deployment is no more: who waits is told, channels are closed once their calls are over."""
        for waiter in [waiter for waiting in self._waiting.values() for waiter in waiting]:
            if not waiter.got.done():
                waiter.got.set_exception(Refusal(grpc.StatusCode.UNAVAILABLE, f"{self.id!r} was just removed."))
        self.update(self.route.model_copy(update={"backends": []}))

    async def abandon(self) -> None:
        """Close every channel now."""
        everyone = [*self._all.values(), *self._leaving.values()]
        await asyncio.gather(*(replica.close() for replica in everyone))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _take(self, replica: Replica, lane: Lane) -> None:
        replica.open[lane] += 1
        self._in_flight += 1

    def _check_queue(self, lane: Lane) -> None:
        if lane is Lane.STREAM and self.replicas:
            raise Refusal(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"Every replica of {self.id!r} has {self._most[lane]} streams open already (max_streams). "
                "Try again later.",
            )
        if self._queued >= self._most_queued:
            raise Refusal(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{self._queued} calls wait for {self.id!r} already (max_queued). Try again later.",
            )

    async def _wait(self, lane: Lane, affinity: str, time_remaining_s: float | None, now: float) -> Replica:
        loop = asyncio.get_running_loop()
        patience = self.route.serving.start_timeout_s
        if time_remaining_s is not None:
            patience = min(patience, time_remaining_s - min(_ANSWER_MARGIN_S, time_remaining_s / 4))
        waiter = _Waiter(affinity, now, now + patience, loop.create_future())
        self._waiting[lane][waiter] = None
        self._review(waiter)
        try:
            return await waiter.got
        except asyncio.CancelledError:
            if waiter.got.done() and not waiter.got.cancelled() and waiter.got.exception() is None:
                # It was given a replica in the moment it was cancelled.
                self.release(waiter.got.result(), lane)
            raise
        finally:
            self._waiting[lane].pop(waiter, None)
            if waiter.timer is not None:
                waiter.timer.cancel()

    def _review(self, waiter: _Waiter) -> None:
        """Ask for a replica as long as there is none, and tell the call why once it has waited long enough."""
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

    def _why_none(self, waited_s: float) -> Refusal:
        detail = f": {self.route.detail}" if self.route.detail else ""
        if self.route.status is DeploymentStatus.FAILING:
            text = f"The replicas of {self.id!r} end by themselves{detail}"
        else:
            text = f"No replica of {self.id!r} became ready within {waited_s:.1f} s{detail}"
        return Refusal(grpc.StatusCode.UNAVAILABLE, text)

    def _serve_waiting(self, lane: Lane) -> None:
        """Hand free places to those that wait, in their order."""
        now = asyncio.get_running_loop().time()
        waiting = self._waiting[lane]
        while waiting:
            waiter = next(iter(waiting))
            if not waiter.got.done():
                most = self._most[lane]
                replica = choose(self.replicas, lane, most, affinity=waiter.affinity, avoid=(), now=now)
                if replica is None:
                    return
                self._take(replica, lane)
                waiter.got.set_result(replica)
            del waiting[waiter]

    def _close_idle(self) -> None:
        for uid in [uid for uid, replica in self._leaving.items() if not replica.in_flight]:
            self._start(self._leaving.pop(uid).close())

    async def _watch_leaving(self, replica: Replica) -> None:
        """Most leave to end their calls in peace. One that left because its host is gone closes no connection."""
        silences = 0
        while self._leaving.get(replica.uid) is replica:
            silences = 0 if await replica.is_there() else silences + 1
            if silences == _SILENCES:
                await replica.give_up()
                return
            await asyncio.sleep(_LOOK_S)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
