"""The only publisher of bells: rings those of the outbox, as a loop's step."""

import logging

from sqlalchemy import delete, select

from contract.broker import Broker, BrokerUnavailable
from contract.deployments import ReplicaStatus
from contract.statuses import Status
from kit.failpoints import reach
from private_api.database import Database
from private_api.deployment_tables import ReplicaRow
from private_api.failpoints import Failpoint
from private_api.tables import OutboxRow, TaskRow

logger = logging.getLogger(__name__)

_PAGE = 50


class Dispatcher:
    """Publishes due outbox rows and deletes them, a page at once, after the broker confirmed each.

    A crash in between rings twice, which a claim tolerates. While the broker is away the rows stay, and consumers
    find tasks and replicas by polling.
    """

    def __init__(self, database: Database, broker: Broker) -> None:
        self._database = database
        self._broker = broker
        self._is_away = False

    def step(self) -> int:
        """Ring every bell that is due. Returns how many."""
        rung = 0
        while page := self._due():
            done: list[int] = []
            try:
                for row, is_waiting in page:
                    # A task or replica that was claimed or ended meanwhile needs no bell.
                    if is_waiting:
                        reach(Failpoint.DISPATCH_DUE)
                        self._broker.publish(row.queue, row.uid)
                        reach(Failpoint.DISPATCH_RUNG)
                        rung += 1
                    done.append(row.id)
            except BrokerUnavailable as error:
                self._note_away(error)
                self._delete(done)
                return rung
            # In one transaction: each would sync the disk, which submissions wait for as well.
            self._delete(done)
            self._note_back()
            # Whoever adds a bell wakes this loop.
            if len(page) < _PAGE:
                break
        return rung

    def _delete(self, ids: list[int]) -> None:
        if ids:
            with self._database.write() as session:
                session.execute(delete(OutboxRow).where(OutboxRow.id.in_(ids)))

    def _due(self) -> list[tuple[OutboxRow, bool]]:
        with self._database.read() as session:
            statement = (
                select(OutboxRow, TaskRow.status, ReplicaRow.status)
                .outerjoin(TaskRow, TaskRow.uid == OutboxRow.uid)
                .outerjoin(ReplicaRow, ReplicaRow.uid == OutboxRow.uid)
                .where(OutboxRow.due_at <= self._database.now(session))
                .order_by(OutboxRow.id)
                .limit(_PAGE)
            )
            return [
                (row, task == Status.QUEUED or replica == ReplicaStatus.WANTED)
                for row, task, replica in session.execute(statement)
            ]

    def _note_away(self, error: BrokerUnavailable) -> None:
        if not self._is_away:
            logger.warning("the broker is away; consumers find tasks by polling until it is back: %s", error)
        self._is_away = True

    def _note_back(self) -> None:
        if self._is_away:
            logger.warning("the broker is back")
        self._is_away = False
