"""Takes back what a consumer says it does not have: the answer to its claim was lost, or it dropped the task."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from contract.claims import HeldAttempt
from contract.statuses import Status
from private_api.tables import AttemptRow, Outcome, TaskRow
from private_api.tasks.rows import end_attempts, end_cancelled, logger, requeue_task

_DETAIL = "its consumer does not have it: the answer to the claim was lost, or the attempt was dropped"


def give_back_unnamed(session: Session, consumer: str, holds: Sequence[HeldAttempt], now: datetime) -> list[str]:
    """Queue again every task that a consumer was given and does not name, blameless. Returns the uids.

    The fence moves, so what the consumer may still send for it is refused. If the lease had expired, that was no crash.
    """
    named = {(attempt.uid, attempt.fence) for attempt in holds}
    statement = (
        select(TaskRow)
        .join(AttemptRow, (AttemptRow.task_id == TaskRow.id) & (AttemptRow.fence == TaskRow.fence))
        .where(AttemptRow.consumer == consumer, AttemptRow.ended_at.is_(None), TaskRow.ended_at.is_(None))
        .order_by(TaskRow.id)
        # One that is locked is being heard of right now; the next claim looks again.
        .with_for_update(of=TaskRow, skip_locked=True)
    )
    unnamed = [row for row in session.scalars(statement) if (row.uid, row.fence) not in named]
    for row in unnamed:
        logger.warning("task=%s fence %s goes back to the queue: %s", row.uid, row.fence, _DETAIL)
        row.fence += 1
        if row.status == Status.QUEUED:
            row.crashes -= 1
        if row.cancel_at is not None:
            end_cancelled(session, row, now)
            continue
        end_attempts(session, row, now, outcome=Outcome.RELEASED, detail=_DETAIL)
        row.detail = _DETAIL
        # It keeps its place in the queue.
        requeue_task(session, row, row.not_before)
    return [row.uid for row in unnamed]
