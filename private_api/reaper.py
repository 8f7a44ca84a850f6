"""Ends what is overdue: expired leases, passed deadlines, tasks that nobody can run. A loop's step."""

import logging
from collections.abc import Callable
from datetime import timedelta

from private_api.absence import is_just_back, was_away
from private_api.database import Database
from private_api.deployments.expire import expire_replica_leases, extend_replica_leases
from private_api.tasks.expire import end_overdue, expire_leases, extend_leases, fail_unschedulable
from private_api.watch import DEPLOYMENTS

logger = logging.getLogger(__name__)

INTERVAL_S = 5.0
_RETURN = timedelta(minutes=10)
"""After the server was away, consumers get so long to be seen again before a task counts as one that nobody can run."""


class Reaper:
    """Several may run at once: each task and each replica is locked while it is judged."""

    def __init__(self, database: Database, *, patience: timedelta, on_change: Callable[[str], None]) -> None:
        self._database = database
        self._patience = patience
        self._on_change = on_change

    def step(self) -> list[str]:
        """Judge every live task and replica once; returns the uids that changed.

        After an outage of this service leases are extended instead: nobody could beat meanwhile, and a running
        container must not be given away for that.
        """
        if was_away(self._database):
            extended = extend_leases(self._database) + extend_replica_leases(self._database)
            logger.warning("the reaper was away; %s leases were extended", extended)
            return []
        changed = [*end_overdue(self._database), *expire_leases(self._database)]
        with self._database.read() as session:
            is_back = is_just_back(session, self._database.now(session), _RETURN)
        if not is_back:
            changed += fail_unschedulable(self._database, self._patience)
        if lost := expire_replica_leases(self._database):
            changed += [*lost, DEPLOYMENTS]
        for uid in changed:
            self._on_change(uid)
        return changed
