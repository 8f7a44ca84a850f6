"""Ends whatever is overdue: expired leases, passed deadlines, tasks that nobody can run. A loop's step."""

import logging
from collections.abc import Callable
from datetime import timedelta

from private_api.absence import is_just_back, note_run
from private_api.database import Database
from private_api.deployments.expire import expire_replica_leases, extend_replica_leases
from private_api.loops.clock import look_at_clock
from private_api.tasks.expire import end_overdue, expire_leases, extend_deadlines, extend_leases, fail_unschedulable
from private_api.watch import DEPLOYMENTS

logger = logging.getLogger(__name__)

INTERVAL_S = 5.0
_RETURN = timedelta(minutes=10)
"""How long consumers get to be seen again after an outage of the server, before tasks count as unschedulable."""


class Reaper:
    """Judges every live task and replica. Several may run at once: each row is locked while it is judged."""

    def __init__(self, database: Database, *, patience: timedelta, on_change: Callable[[str], None]) -> None:
        self._database = database
        self._patience = patience
        self._on_change = on_change

    def step(self) -> list[str]:
        """Judge every live task and replica once. Returns the uids that changed.

        After an outage of this service leases begin anew instead, and deadlines move by as long as it took: nobody
        could report meanwhile, and that must not give a running container's task away, or end it.
        """
        look_at_clock(self._database)
        if self._forgive_absence():
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

    def _forgive_absence(self) -> bool:
        with self._database.write() as session:
            now = self._database.now(session)
            away = note_run(session, now)
            if away is None:
                return False
            extended = extend_replica_leases(session, now) + extend_leases(session, now)
            extend_deadlines(session, away)
        logger.warning("the reaper was away for %.0f s; %s leases were extended", away.total_seconds(), extended)
        return True
