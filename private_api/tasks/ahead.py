"""Attempts that are prepared ahead: their consumer fetches the input while another task still runs there.

Such a task has not begun. It belongs to whoever can run it first, so it may be taken from its consumer until that one
begins it, and nobody is blamed.
"""

from datetime import datetime

from sqlalchemy import Select, select, update
from sqlalchemy.orm import Session

from contract.statuses import Status
from private_api.tables import AttemptRow, Outcome, TaskRow
from private_api.tasks.rows import end_attempts, end_cancelled, logger, requeue_task


def prepared_ahead() -> Select[TaskRow]:
    """The tasks that are prepared ahead and were not begun; those that somebody else is changing are left out.

    Task and attempt are locked until the transaction ends: none of these begins meanwhile.
    """
    return (
        select(TaskRow)
        .join(AttemptRow, (AttemptRow.task_id == TaskRow.id) & (AttemptRow.fence == TaskRow.fence))
        .where(AttemptRow.is_ahead, AttemptRow.ended_at.is_(None), TaskRow.ended_at.is_(None))
        .with_for_update(of=(TaskRow, AttemptRow), skip_locked=True)
    )


def is_prepared_ahead(session: Session, row: TaskRow) -> bool:
    """Whether the attempt that holds the task has not begun because another task still runs at its consumer."""
    statement = select(AttemptRow.id).where(
        AttemptRow.task_id == row.id, AttemptRow.fence == row.fence, AttemptRow.ended_at.is_(None), AttemptRow.is_ahead
    )
    return session.scalars(statement).first() is not None


def note_begun(session: Session, row: TaskRow) -> None:
    """What runs was begun: nobody takes it over any more."""
    if row.status != Status.RUNNING:
        open_ahead = AttemptRow.task_id == row.id, AttemptRow.ended_at.is_(None), AttemptRow.is_ahead
        begun = update(AttemptRow).where(*open_ahead).values(is_ahead=False)
        # Nobody has read the attempt in this transaction.
        session.execute(begun, execution_options={"synchronize_session": False})


def take_from_holder(session: Session, row: TaskRow, now: datetime, why: str) -> None:
    """Queue a task again that is prepared ahead; it keeps its place. What its holder still sends is refused."""
    logger.info("task=%s fence %s goes back to the queue before it began: %s", row.uid, row.fence, why)
    row.fence += 1
    if row.cancel_at is not None:
        end_cancelled(session, row, now)
        return
    end_attempts(session, row, now, outcome=Outcome.RELEASED, detail=why)
    if row.status == Status.QUEUED:
        # Its lease had expired, which was counted as a crash.
        row.crashes -= 1
    requeue_task(session, row, row.not_before)
