"""The routing table of one gateway process: what the private API last said, ready for look-ups."""

import asyncio
from collections.abc import Callable, Iterable

from contract.deployments import Route, RoutingTable
from grpc_gateway.admission import Limits
from grpc_gateway.deployments import Deployment

_LEFT_REPLICA_GRACE_S = 60.0
"""How long after its drain timeout a replica that left the table may still call with its token."""


class Table:
    """Deployments by their names. It belongs to one event loop; every look-up is a dictionary's."""

    def __init__(self, limits: Limits, demand: Callable[[str], None]) -> None:
        self._limits = limits
        self._demand = demand
        self._change = asyncio.Event()
        self._routes: dict[str, Route] = {}
        self._removed: list[Deployment] = []
        self._left: dict[str, tuple[Route, float]] = {}
        self.etag: str | None = None
        """Of the table that is in use; None before the first."""
        self.is_draining = False
        """Whether this gateway is about to stop."""
        self.is_closed = False
        """Whether this gateway is stopping now."""
        self.deployments: dict[str, Deployment] = {}
        """By id, sorted."""
        self.by_prefix: dict[str, Deployment] = {}
        self.by_application: dict[str, Deployment] = {}
        self.by_model: dict[str, Deployment] = {}
        self.by_name: dict[str, list[Deployment]] = {}
        """By id, application, model name (routed by or not) or service: whatever a health check may name."""
        self.only: Deployment | None = None
        """The only deployment, if there is exactly one."""
        self.ended_keys: frozenset[str] = frozenset()
        """The ids of keys that were revoked or expired of late."""

    @property
    def is_populated(self) -> bool:
        """Whether a table has ever arrived."""
        return self.etag is not None

    def apply(self, table: RoutingTable) -> None:
        """Route calls by `table` from now on. Calls under way are not touched."""
        current: dict[str, Deployment] = {}
        for route in table.routes:
            deployment = self.deployments.get(route.human_readable_id)
            if deployment is None:
                deployment = Deployment(route, self._limits, self._demand)
            else:
                deployment.update(route)
            current[route.human_readable_id] = deployment
        gone = [deployment for name, deployment in self.deployments.items() if name not in current]
        for deployment in gone:
            deployment.remove()
        self._removed = [deployment for deployment in (*self._removed, *gone) if deployment.open_calls()]
        self.deployments = current
        everyone = list(current.values())
        self.by_prefix = {d.route.serving.prefix: d for d in everyone if d.route.serving.prefix}
        self.by_application = {name: d for d in everyone for name in d.route.applications}
        self.by_model = {name: d for d in everyone for name in d.route.model_names}
        self.by_name = _by_name(everyone)
        self.only = everyone[0] if len(everyone) == 1 else None
        self._note_replicas(everyone)
        self.ended_keys = frozenset(table.ended_keys)
        self.etag = table.etag
        self._tell()

    def open_calls(self) -> dict[str, int]:
        """Calls open per replica, including those of removed deployments while they have any."""
        self._removed = [deployment for deployment in self._removed if deployment.open_calls()]
        return {
            uid: count
            for deployment in (*self.deployments.values(), *self._removed)
            for uid, count in deployment.open_calls().items()
        }

    def drain(self) -> None:
        """Have health checks report that this gateway is about to stop. Calls are still served."""
        self.is_draining = True
        self._tell()

    def close(self) -> None:
        """End everything that waits for changes: this gateway stops now."""
        self.is_closed = True
        self._tell()

    async def abandon(self) -> None:
        """Close the connections to all replicas."""
        everyone = (*self.deployments.values(), *self._removed)
        await asyncio.gather(*(deployment.abandon() for deployment in everyone))

    def next_change(self) -> asyncio.Event:
        """An event that is set at the next change. Take it before looking, so that no change is missed in between."""
        return self._change

    def route_of_replica(self, uid: str) -> Route | None:
        """The deployment that this replica is of, as it is now; None for a replica that is no more."""
        route = self._routes.get(uid)
        if route is None:
            route, until = self._left.get(uid, (None, 0.0))
            if route is None or until <= asyncio.get_running_loop().time():
                return None
        current = self.deployments.get(route.human_readable_id)
        return current.route if current else route

    def _note_replicas(self, everyone: Iterable[Deployment]) -> None:
        """Remember the route of each replica; one that drains may still call for a while."""
        now = asyncio.get_running_loop().time()
        self._left = {uid: (route, until) for uid, (route, until) in self._left.items() if until > now}
        current: dict[str, Route] = {}
        drain_s = _LEFT_REPLICA_GRACE_S
        for deployment in everyone:
            drain_s = max(drain_s, deployment.route.serving.drain_timeout_s + _LEFT_REPLICA_GRACE_S)
            for backend in deployment.route.backends:
                current[backend.uid] = deployment.route
        for uid in self._routes.keys() - current.keys():
            self._left[uid] = (self._routes[uid], now + drain_s)
        self._routes = current

    def _tell(self) -> None:
        change, self._change = self._change, asyncio.Event()
        change.set()


def _by_name(everyone: Iterable[Deployment]) -> dict[str, list[Deployment]]:
    names: dict[str, list[Deployment]] = {}
    for deployment in everyone:
        route = deployment.route
        own = {deployment.id, *route.applications, *route.inner_model_names, *filter(None, [route.serving.service])}
        for name in own:
            names.setdefault(name, []).append(deployment)
    return names
