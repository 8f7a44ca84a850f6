"""Leases: how long a consumer may be silent, and how this service notes that it was heard.

Tasks and replicas are held alike: under a fence, and under a lease that each heartbeat extends.
"""

from datetime import datetime, timedelta

from sqlalchemy import update
from sqlalchemy.orm import Session

from private_api.tables import ConsumerRow

LEASE = timedelta(seconds=60)
"""A holder that is silent for this long loses what it holds. Holders send six heartbeats in this time."""
AMNESTY_AFTER = timedelta(seconds=15)
"""A reaper that was away for longer than this extends all leases first: holders had nobody to report to."""
FENCE_JUMP = 1_000_000
"""Added to every fence by a restore: more than a fence can have risen between the backup and the loss of the server."""


def note_seen(session: Session, consumer: str, now: datetime) -> None:
    """Write that the consumer was seen."""
    seen = update(ConsumerRow).where(ConsumerRow.name == consumer).values(seen_at=now)
    session.execute(seen.execution_options(synchronize_session=False))
