"""Starts missing replicas, drains surplus and outdated ones, and makes room for tasks. A loop's step."""

from collections.abc import Callable
from datetime import timedelta

from sqlalchemy import select

from private_api.database import Database
from private_api.deployment_tables import DeploymentRow
from private_api.deployments.gateways import forget_silent_gateways, read_load
from private_api.deployments.rows import logger
from private_api.loops.clock import look_at_clock
from private_api.placement.evict import evict_for_tasks
from private_api.placement.scale import scale_deployment

INTERVAL_S = 1.0


class Scaler:
    """Decides about every deployment. Several may run at once: each locks a deployment and skips locked ones."""

    def __init__(self, database: Database, *, yield_after: timedelta, on_change: Callable[[], None]) -> None:
        """`on_change` is called after each step that changed a replica."""
        self._database = database
        self._yield_after = yield_after
        self._on_change = on_change

    def step(self) -> bool:
        """Decide about every deployment once. Returns whether anything changed."""
        look_at_clock(self._database)
        forget_silent_gateways(self._database)
        with self._database.read() as session:
            ids = list(session.scalars(select(DeploymentRow.id).order_by(DeploymentRow.id)))
            load = read_load(session, self._database.now(session))
        changed = False
        for deployment_id in ids:
            try:
                changed |= scale_deployment(self._database, deployment_id, load)
            except Exception:
                logger.exception("deployment %s could not be scaled; continuing with the others", deployment_id)
        changed |= evict_for_tasks(self._database, self._yield_after)
        if changed:
            self._on_change()
        return changed
