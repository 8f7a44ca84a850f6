"""The linker: links what the audit trail recorded to its chain, and notes the newest link in the log.

The log may lie where nobody who rules the database can change it; then what it notes shows that no entry is gone.
"""

import logging
import time

from private_api.audit.chain import last_link, link_events, newest_event
from private_api.audit_tables import AuditEventRow
from private_api.database import Database
from private_api.settling import Settling

logger = logging.getLogger(__name__)

INTERVAL_S = 2.0
_NOTED_EVERY_S = 3600


class Linker:
    """Calls of `step` link; a loop makes them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._settling = Settling(AuditEventRow.__tablename__, newest_event)
        self._linked_until = 0
        self._noted: tuple[int, float] = 0, -_NOTED_EVERY_S

    def step(self) -> None:
        """Link what can be linked. Raises `ServiceUnavailable`, `StorageFull`."""
        settled = self._settling.look(self._database)
        if settled is not None and settled > self._linked_until:
            link_events(self._database, until=settled)
            self._linked_until = settled
        self._note()

    def _note(self) -> None:
        position, noted_at = self._noted
        if time.monotonic() - noted_at < _NOTED_EVERY_S:
            return
        link = last_link(self._database)
        if link is not None and link.position > position:
            logger.info("audit trail: %s entries, head=%s", link.position, link.hash)
        self._noted = link.position if link else 0, time.monotonic()
