"""Brings a deployment to the replicas it needs: starts missing ones, drains surplus and outdated ones."""

from datetime import datetime

from sqlalchemy.orm import Session

from contract.deployments import ReplicaReason, ReplicaStatus
from contract.serving import ServingSpec
from private_api.absence import is_just_back
from private_api.database import Database
from private_api.deployment_tables import DeploymentRow, ReplicaRow
from private_api.deployments.gateways import Load, count_tasks, read_load
from private_api.deployments.limits import GATEWAY_SILENCE, STEADY_AFTER, WAIT_TOLD_AFTER
from private_api.deployments.rows import (
    COUNTED,
    drain_replica,
    explain,
    is_current,
    lock_deployment,
    lock_live_replicas,
    named,
    serving_of,
    want_replica,
)
from private_api.placement.need import Need, assess_need, clamp
from private_api.placement.occupancy import draining_names, find_obstacle


def scale_model(database: Database, human_readable_id: str) -> bool:
    """Decide about one deployment now, so that the answer to a deploy shows the result."""
    with database.read() as session:
        row = session.scalars(named(human_readable_id)).one_or_none()
        load = read_load(session, database.now(session))
    return row is not None and scale_deployment(database, row.id, load)


def scale_deployment(database: Database, deployment_id: int, load: Load) -> bool:
    """Bring a deployment one step closer to what it needs. Returns whether a replica changed. Skips a locked one."""
    with database.write() as session:
        deployment = lock_deployment(session, deployment_id, skip=True)
        if deployment is None:
            return False
        now = database.now(session)
        replicas = lock_live_replicas(session, deployment.id)
        serving = serving_of(deployment)
        _forget_failures(deployment, replicas, now)
        count = _count_needed(session, deployment, serving, load, now)
        before = [(row.status, row.detail) for row in replicas]
        counted = [row for row in replicas if row.status in COUNTED]
        leaving = set(session.scalars(draining_names()))
        # A replica at a draining consumer is replaced like an outdated one: elsewhere first, if there is room.
        current = [row for row in counted if is_current(row, deployment) and row.consumer not in leaving]
        _start(session, deployment, count - len(current), now)
        _tell_obstacles(session, current, now)
        _let_go(current[:], count, load, now)
        _replace(counted, current, count, load, now)
        changed = count > len(current) and _may_start(deployment, now)
        return changed or before != [(row.status, row.detail) for row in replicas]


def _may_start(deployment: DeploymentRow, now: datetime) -> bool:
    return deployment.not_before is None or deployment.not_before <= now


def _forget_failures(deployment: DeploymentRow, replicas: list[ReplicaRow], now: datetime) -> None:
    is_steady = any(
        row.status == ReplicaStatus.READY and row.ready_at is not None and now - row.ready_at >= STEADY_AFTER
        for row in replicas
        if is_current(row, deployment)
    )
    if deployment.failures and is_steady:
        deployment.failures = 0
        deployment.not_before = None
        explain(deployment, None)


def _count_needed(session: Session, deployment: DeploymentRow, serving: ServingSpec, load: Load, now: datetime) -> int:
    name = deployment.model.human_readable_id
    in_flight = load.in_flight[name] + count_tasks(session, deployment.id)
    called_at = max((at for at in (load.called_at.get(name), deployment.called_at) if at is not None), default=None)
    before = Need(deployment.wanted, deployment.wanted_at)
    need = assess_need(before, serving, in_flight=in_flight, called_at=called_at, now=now)
    if need.replicas < before.replicas and is_just_back(session, now, 2 * GATEWAY_SILENCE):
        # During the outage gateways had nobody to report to.
        need = before
    deployment.called_at = called_at
    deployment.wanted, deployment.wanted_at = need.replicas, need.at
    return clamp(need, serving)


def _start(session: Session, deployment: DeploymentRow, missing: int, now: datetime) -> None:
    if _may_start(deployment, now):
        for _ in range(missing):
            want_replica(session, deployment, now)


def _tell_obstacles(session: Session, current: list[ReplicaRow], now: datetime) -> None:
    for row in current:
        if row.status == ReplicaStatus.WANTED:
            obstacle = find_obstacle(session, row, now)
            # A replica that was wanted just now may be claimed any moment.
            explain(row, obstacle if now - row.created_at >= WAIT_TOLD_AFTER else None)


def _let_go(replicas: list[ReplicaRow], count: int, load: Load, now: datetime) -> None:
    """Drain the surplus: first replicas that have not started, then those with the fewest calls."""
    ranks = {ReplicaStatus.WANTED: 0, ReplicaStatus.STARTING: 1, ReplicaStatus.READY: 2}
    replicas.sort(key=lambda row: (ranks[row.status], load.replicas[row.uid], -row.id))
    for row in replicas[: max(0, len(replicas) - count)]:
        drain_replica(row, ReplicaReason.SURPLUS, now)


def _replace(counted: list[ReplicaRow], current: list[ReplicaRow], count: int, load: Load, now: datetime) -> None:
    """Drain outdated replicas as current ones become ready, or at once if those need their place."""
    outdated = [row for row in counted if row not in current]
    ready = sum(row.status == ReplicaStatus.READY for row in current)
    # A waiting replica with a detail has nowhere to go: old ones must make room.
    stuck = sum(row.status == ReplicaStatus.WANTED and row.detail is not None for row in current)
    kept = [row for row in outdated if row.status == ReplicaStatus.READY]
    for row in outdated:
        if row not in kept:
            drain_replica(row, ReplicaReason.SURPLUS, now)
    _let_go(kept, max(0, count - ready - stuck), load, now)
