"""What a claim finds around its consumer, in one question to the database: most claims need to know no more."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, exists, select, true
from sqlalchemy.orm import Session

from contract.deployments import ReplicaStatus
from private_api.database import Database
from private_api.deployment_tables import ReplicaRow
from private_api.placement.occupancy import is_hosted
from private_api.quotas.running import held_by_owner, within_quotas
from private_api.server_tables import ServerRow
from private_api.tables import AttemptRow


@dataclass(frozen=True)
class Surroundings:
    """As of one moment, in which the consumer's row was locked."""

    now: datetime
    holds_attempts: bool
    """Whether the consumer was given what is not over."""
    hosts_replicas: bool
    is_replica_wanted: bool
    """Whether any replica waits for a place, wherever."""
    is_any_ahead: bool
    """Whether a task is prepared ahead, wherever."""
    running_limit: int | None
    """What the server says that each owner may run."""
    held: Sequence[tuple[str, int]]
    """How many tasks of each owner are held."""

    @property
    def within_quota(self) -> ColumnElement[bool]:
        """The condition that a queued task's owner may run one more."""
        return within_quotas(self.held, self.running_limit)


def look_around(database: Database, session: Session, consumer: str) -> Surroundings:
    """Look, from within the transaction that locked the consumer's row."""
    is_open = AttemptRow.ended_at.is_(None)
    facts = select(
        database.clock().label("now"),
        exists().where(AttemptRow.consumer == consumer, is_open).label("holds"),
        exists().where(ReplicaRow.consumer == consumer, is_hosted()).label("hosts"),
        exists().where(ReplicaRow.status == ReplicaStatus.WANTED).label("wanted"),
        exists().where(AttemptRow.is_ahead, is_open).label("ahead"),
        select(ServerRow.running_limit).scalar_subquery().label("running_limit"),
    ).subquery()
    held = held_by_owner().subquery()
    rows = session.execute(select(facts, held).select_from(facts.outerjoin(held, true()))).all()
    now, holds, hosts, wanted, ahead, running_limit = rows[0][:6]
    counts = [(owner, count) for *_, owner, count in rows if owner is not None]
    return Surroundings(database.told(now), holds, hosts, wanted, ahead, running_limit, counts)
