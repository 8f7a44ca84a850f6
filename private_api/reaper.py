"""Ends what is overdue: expired leases, passed deadlines, tasks that nobody can run. A loop's step."""

import logging
from collections.abc import Callable
from datetime import timedelta

from private_api.database import Database
from private_api.tables import HeartbeatRow
from private_api.tasks.expire import end_overdue, expire_leases, extend_leases, fail_unschedulable
from private_api.tasks.limits import AMNESTY_AFTER

logger = logging.getLogger(__name__)

INTERVAL_S = 5.0
_BACK = "reaper.back"
_RETURN = timedelta(minutes=10)
"""After the server was away, consumers get so long to be seen again before a task counts as one that nobody can run."""


class Reaper:
    """Several may run at once: each task is locked while it is judged."""

    def __init__(self, database: Database, *, patience: timedelta, on_change: Callable[[str], None]) -> None:
        self._database = database
        self._patience = patience
        self._on_change = on_change

    def step(self) -> list[str]:
        """Judge every live task once; returns the uids that changed.

        After an outage of this service leases are extended instead: nobody could beat meanwhile, and a running
        container must not be given away for that.
        """
        if self._was_away():
            extended = extend_leases(self._database)
            logger.warning("the reaper was away; %s leases were extended", extended)
            return []
        changed = [*end_overdue(self._database), *expire_leases(self._database)]
        if not self._is_just_back():
            changed += fail_unschedulable(self._database, self._patience)
        for uid in changed:
            self._on_change(uid)
        return changed

    def _was_away(self) -> bool:
        with self._database.write() as session:
            now = self._database.now(session)
            row = session.get(HeartbeatRow, "reaper")
            if row is None:
                session.add(HeartbeatRow(name="reaper", at=now))
                return False
            away = now - row.at > AMNESTY_AFTER
            row.at = now
            if away:
                session.merge(HeartbeatRow(name=_BACK, at=now))
            return away

    def _is_just_back(self) -> bool:
        with self._database.read() as session:
            row = session.get(HeartbeatRow, _BACK)
            return row is not None and self._database.now(session) - row.at < _RETURN
