"""Polls of queued tasks that are answered together: what one of them needs, the others need, too."""

from collections.abc import Sequence

from contract.access import Caller
from contract.errors import InferenceError
from private_api.database import Database
from private_api.placement.outlook import pending
from private_api.placement.places import find_positions
from private_api.recent import Recent
from private_api.tasks.read import read_all_queued
from private_api.tasks.rows import sees


def answer_polls(
    database: Database, polls: Sequence[tuple[str, Caller]], recent: Recent
) -> list[InferenceError | None]:
    """What each poll, of a task's uid by a caller, is answered if its task is queued; None for whatever else.

    What it says of the queue is as `recent` has it.
    """
    with database.read() as session:
        rows = read_all_queued(session, {uid for uid, _ in polls})
        if not rows:
            return [None] * len(polls)
        now, positions = database.now(session), find_positions(session, rows.values(), recent)
        return [
            pending(session, row, now, caller, recent, position=positions[row.id])
            if (row := rows.get(uid)) is not None and sees(caller, row.owner)
            else None
            for uid, caller in polls
        ]
