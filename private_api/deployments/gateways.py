"""What gateways report, which calls wait for a replica, and the load that both add up to."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from contract.deployments import GatewayReport
from contract.statuses import Status
from private_api.absence import is_just_back
from private_api.database import Database
from private_api.deployment_tables import DeploymentRow, GatewayRow, ReplicaRow
from private_api.deployments.limits import GATEWAY_KEPT, GATEWAY_SILENCE
from private_api.deployments.rows import find_deployment
from private_api.tables import AttemptRow, TaskRow


@dataclass
class Load:
    """The sum of what all live gateways report."""

    in_flight: Counter[str] = field(default_factory=Counter)
    """Calls that are open or waiting, per deployment."""
    called_at: dict[str, datetime] = field(default_factory=dict)
    """The time of the last call, per deployment."""
    replicas: Counter[str] = field(default_factory=Counter)
    """Open calls, per replica."""
    is_used: set[str] = field(default_factory=set)
    """Replicas that a gateway may still send calls to."""


def note_report(database: Database, report: GatewayReport) -> None:
    """Keep a gateway's newest report."""
    with database.write() as session:
        session.merge(GatewayRow(name=report.gateway, report=report.model_dump_json(), seen_at=database.now(session)))


def forget_gateway(database: Database, gateway: str) -> None:
    """Forget a gateway process, which is gone and holds nothing. Idempotent."""
    with database.write() as session:
        session.execute(delete(GatewayRow).where(GatewayRow.name == gateway))


def note_demand(database: Database, human_readable_id: str) -> None:
    """Note that a call waits for a replica. Raises `DeploymentNotFound`."""
    with database.write() as session:
        row = find_deployment(session, human_readable_id)
        now = database.now(session)
        session.execute(update(DeploymentRow).where(DeploymentRow.id == row.id).values(called_at=now))


def read_load(session: Session, now: datetime) -> Load:
    """The load at this moment. A silent gateway counts for nothing."""
    load = Load()
    fresh = select(GatewayRow).where(GatewayRow.seen_at > now - GATEWAY_SILENCE)
    for row in session.scalars(fresh):
        report = GatewayReport.model_validate_json(row.report)
        load.replicas.update(report.replicas)
        load.is_used.update(report.replicas)
        for name, seen in report.deployments.items():
            busy = seen.in_flight + seen.queued
            load.in_flight[name] += busy
            if busy or seen.idle_s is not None:
                called_at = row.seen_at - timedelta(seconds=0 if busy else seen.idle_s or 0)
                load.called_at[name] = max(called_at, load.called_at.get(name, called_at))
    return load


def count_tasks(session: Session, deployment_id: int) -> int:
    """How many tasks run through replicas of a deployment; they count as calls."""
    statement = (
        select(func.count())
        .select_from(AttemptRow)
        .join(ReplicaRow, ReplicaRow.uid == AttemptRow.replica_uid)
        .join(TaskRow, TaskRow.id == AttemptRow.task_id)
        .where(ReplicaRow.deployment_id == deployment_id, AttemptRow.ended_at.is_(None))
    )
    return session.scalar(statement.where(TaskRow.status != Status.QUEUED)) or 0


def is_let_go(session: Session, row: ReplicaRow, now: datetime) -> bool:
    """Whether no gateway and no task uses a draining replica any more.

    A gateway counts once it has reported since the draining began: an earlier report may be older than the routing
    table that led the gateway to the replica. After an outage of the server gateways get time to report again.
    """
    if is_just_back(session, now, 2 * GATEWAY_SILENCE):
        return False
    tasks = select(AttemptRow.id).where(AttemptRow.replica_uid == row.uid, AttemptRow.ended_at.is_(None))
    if session.scalars(tasks.limit(1)).first() is not None:
        return False
    for gateway in session.scalars(select(GatewayRow).where(GatewayRow.seen_at > now - GATEWAY_SILENCE)):
        if row.draining_at is None or gateway.seen_at <= row.draining_at:
            return False
        if row.uid in GatewayReport.model_validate_json(gateway.report).replicas:
            return False
    return True


def forget_silent_gateways(database: Database) -> None:
    """Remove the reports of gateways that are long silent."""
    with database.write() as session:
        session.execute(delete(GatewayRow).where(GatewayRow.seen_at < database.now(session) - GATEWAY_KEPT))
