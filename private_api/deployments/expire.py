"""Ends replicas whose consumers went silent, and all of them after a restore."""

from datetime import datetime

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from contract.deployments import ReplicaReason
from private_api.database import Database
from private_api.deployment_tables import DeploymentRow, GatewayRow, ReplicaRow
from private_api.deployments.rows import HOSTED, end_replica_row, lock_replica, logger
from private_api.leases import FENCE_JUMP, LEASE


def extend_replica_leases(session: Session, now: datetime) -> int:
    """Renew the lease of every replica, because nobody can tell which ones expired. Returns how many."""
    statement = update(ReplicaRow).where(ReplicaRow.status.in_(HOSTED)).values(lease_until=now + LEASE)
    return len(session.execute(statement.returning(ReplicaRow.id)).all())


def expire_replica_leases(database: Database) -> list[str]:
    """End every replica whose lease has expired; the scaler starts another. Returns the uids."""
    with database.read() as session:
        overdue = select(ReplicaRow.uid).where(ReplicaRow.lease_until < database.now(session))
        uids = list(session.scalars(overdue.order_by(ReplicaRow.id)))
    return [uid for uid in uids if _expire(database, uid)]


def _expire(database: Database, uid: str) -> bool:
    try:
        with database.write() as session:
            row = lock_replica(session, uid)
            now = database.now(session)
            if row.lease_until is None or row.lease_until >= now:
                return False
            end_replica_row(row, ReplicaReason.LOST, now, summary=f"consumer {row.consumer} stopped answering")
            return True
    except Exception:
        logger.exception("replica=%s could not be expired; continuing with the others", uid)
        return False


def restart_deployments(session: Session, now: datetime) -> int:
    """End every replica after a restore, under a fence that nobody was ever given: no earlier host can win.

    The scaler then starts new ones. Returns how many ended. Runs in the caller's transaction.
    """
    ended = 0
    for row in session.scalars(select(ReplicaRow).where(ReplicaRow.ended_at.is_(None)).order_by(ReplicaRow.id)):
        row.fence += FENCE_JUMP
        end_replica_row(row, ReplicaReason.LOST, now, summary="the server was restored from a backup")
        ended += 1
    session.execute(update(DeploymentRow).values(failures=0, not_before=None, summary=None, detail=None))
    session.execute(delete(GatewayRow))
    return ended
