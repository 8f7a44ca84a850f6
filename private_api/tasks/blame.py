"""Whether failures end a task: those of one consumer alone say more of that consumer than of the task."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from contract.statuses import Reason
from private_api.leases import LEASE
from private_api.tables import AttemptRow, ConsumerRow, Outcome, TaskRow
from private_api.tasks.limits import MOST_FAILURES


def ends_task(
    session: Session, row: TaskRow, now: datetime, *, failures: int, limit: int, outcome: Outcome | Reason
) -> bool:
    """Whether a task ends with this failure; `outcome` is that of the attempts that failed the same way.

    The failures of one consumer count once while another one that could run the task is there and did not fail. There
    is an end to that: where nobody else takes the task, it ends after `MOST_FAILURES` times the limit.
    """
    if failures < limit or failures >= limit * MOST_FAILURES:
        return failures >= limit
    attempts = select(AttemptRow.consumer).where(AttemptRow.task_id == row.id)
    # The open attempt is the one that fails now.
    failed = set(session.scalars(attempts.where((AttemptRow.outcome == outcome) | AttemptRow.ended_at.is_(None))))
    if len(failed) >= limit:
        return True
    kind = ConsumerRow.gpu_uuid.is_not(None) if row.use_gpu else ConsumerRow.accepts_cpu_tasks.is_(True)
    others = select(ConsumerRow.name).where(
        kind, ConsumerRow.draining_at.is_(None), ConsumerRow.seen_at > now - LEASE, ConsumerRow.name.not_in(failed)
    )
    return session.scalars(others.limit(1)).first() is None
