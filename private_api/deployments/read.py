"""Deployments as operators see them, each with a status in one word."""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from contract.access import Caller, Scope
from contract.deployments import DeploymentStatus, DeploymentView, ReplicaStatus, ReplicaView
from private_api.database import Database
from private_api.deployment_tables import DeploymentRow, ReplicaRow
from private_api.deployments.gateways import Load, read_load
from private_api.deployments.rows import find_deployment, serving_of
from private_api.tables import ModelRow

_ENDED_SHOWN = 5
_NOT_SUMMED_UP = "the deployment's owner and operators see why"
_SECRET = "***"  # noqa: S105 - shown in the place of one


def show_deployment(database: Database, human_readable_id: str, caller: Caller) -> DeploymentView:
    """One deployment. Raises `DeploymentNotFound`."""
    with database.read() as session:
        row = find_deployment(session, human_readable_id)
        now = database.now(session)
        return hide_secrets(_view(session, row, read_load(session, now)), caller)


def list_deployments(database: Database, caller: Caller, *, limit: int, after: str | None) -> list[DeploymentView]:
    """A page of the deployments, in the order of their models' ids."""
    statement = (
        select(DeploymentRow)
        .join(DeploymentRow.model)
        .where(ModelRow.human_readable_id > (after or ""))
        .order_by(ModelRow.human_readable_id)
        .limit(limit)
    )
    with database.read() as session:
        load = read_load(session, database.now(session))
        return [hide_secrets(_view(session, row, load), caller) for row in session.scalars(statement)]


def hide_secrets(view: DeploymentView, caller: Caller) -> DeploymentView:
    """The deployment as the caller may see it.

    The values of its restricted keys are for those who may set them. What its containers said is for its owner and for
    operators; of one that was deployed without a key, for callers without one.
    """
    is_insider = caller.may(Scope.OPERATE) or caller.owner == view.owner
    if not (is_insider and caller.may(Scope.MODELS)):
        keys = [key.model_copy(update={"value": _SECRET}) for key in view.serving.restricted_keys]
        view = view.model_copy(update={"serving": view.serving.model_copy(update={"restricted_keys": keys})})
    if is_insider:
        return view
    replicas = [replica.model_copy(update={"detail": replica.summary}) for replica in view.replicas]
    return view.model_copy(update={"detail": view.summary, "replicas": replicas})


def summary_of(cause: DeploymentRow | ReplicaRow | None) -> str | None:
    """Why a deployment or a replica stands where it does, as everybody may know it."""
    if cause is None or cause.detail is None:
        return None
    return cause.summary or _NOT_SUMMED_UP


def live_replicas(session: Session, deployment_id: int) -> list[ReplicaRow]:
    """The replicas that have not ended, oldest first."""
    statement = select(ReplicaRow).where(ReplicaRow.deployment_id == deployment_id, ReplicaRow.ended_at.is_(None))
    return list(session.scalars(statement.order_by(ReplicaRow.id)))


def judge(row: DeploymentRow, live: Iterable[ReplicaRow]) -> tuple[DeploymentStatus, DeploymentRow | ReplicaRow | None]:
    """The status of a deployment, and the row whose summary and detail say why it has it."""
    statuses = [replica.status for replica in live]
    begun = [replica for replica in live if replica.status in (ReplicaStatus.WANTED, ReplicaStatus.STARTING)]
    waiting = next((replica for replica in begun if replica.detail), None)
    if ReplicaStatus.READY in statuses:
        return DeploymentStatus.READY, row if row.detail else waiting
    if row.failures:
        return DeploymentStatus.FAILING, row
    if ReplicaStatus.WANTED in statuses or ReplicaStatus.STARTING in statuses:
        return DeploymentStatus.STARTING, waiting
    return DeploymentStatus.IDLE, None


def _view(session: Session, row: DeploymentRow, load: Load) -> DeploymentView:
    live = live_replicas(session, row.id)
    ended = select(ReplicaRow).where(ReplicaRow.deployment_id == row.id, ReplicaRow.ended_at.is_not(None))
    last = session.scalars(ended.order_by(ReplicaRow.ended_at.desc(), ReplicaRow.id.desc()).limit(_ENDED_SHOWN)).all()
    status, cause = judge(row, live)
    return DeploymentView(
        human_readable_id=row.model.human_readable_id,
        model_version=row.model_version.number,
        owner=row.owner if row.model.owner is None else row.model.owner,
        serving=serving_of(row),
        status=status,
        summary=summary_of(cause),
        detail=cause.detail if cause else None,
        failures=row.failures,
        next_start_at=_future(row),
        replicas=[_view_replica(replica, load) for replica in [*live, *last]],
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _future(row: DeploymentRow) -> datetime | None:
    return row.not_before if row.failures else None


def _view_replica(row: ReplicaRow, load: Load) -> ReplicaView:
    return ReplicaView(
        uid=row.uid,
        model_version=row.model_version.number,
        status=row.status,
        reason=row.reason if row.reason else None,
        summary=summary_of(row),
        detail=row.detail,
        consumer=row.consumer,
        gpu_uuid=row.gpu_uuid,
        address=row.address,
        in_flight=load.replicas[row.uid],
        created_at=row.created_at,
        ready_at=row.ready_at,
        ended_at=row.ended_at,
    )
