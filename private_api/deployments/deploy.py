"""Deploying and undeploying models."""

import re

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from contract.deployments import ReplicaReason
from contract.errors import InvalidRequest, NameTaken
from contract.schemas import PROCESS_TAG_PREFIX
from contract.serving import ServingSpec
from private_api.database import Database
from private_api.deployment_tables import DeploymentNameRow, DeploymentRow, ReplicaRow
from private_api.deployments.rows import (
    drain_replica,
    is_current,
    lock_deployment,
    lock_live_replicas,
    logger,
    named,
    serving_of,
)
from private_api.models import find_version, take_version

_HOST_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def deploy_model(database: Database, reference: str, serving: ServingSpec, *, owner: str | None) -> str:
    """Keep a version of a model warm as described. An existing deployment is changed. Returns the model's id.

    The version is that of `<id>@<version>`, of a plain id the default one, for as long as nobody deploys again. The
    scaler replaces replicas whose container is affected; the others stay. Earlier failures are forgotten, because
    whoever deploys again has repaired something. Raises `ModelNotFound`, `ModelRetired`, `NameTaken`, `InvalidRequest`.
    """
    with database.write() as session:
        # Names are compared with those of every other deployment.
        database.serialize(session, "deployment names")
        version = take_version(session, reference)
        human_readable_id = version.model.human_readable_id
        if serving.express and not _HOST_LABEL.fullmatch(human_readable_id):
            raise InvalidRequest(
                f"express: {human_readable_id!r} would be part of a host name, so it may have letters, digits and '-' "
                "alone"
            )
        if version.container_tag.startswith(PROCESS_TAG_PREFIX):
            raise InvalidRequest(
                f"{human_readable_id!r} is run as a process; only models with an image can be deployed"
            )
        known = session.scalars(named(human_readable_id)).one_or_none()
        row = lock_deployment(session, known.id if known else None)
        now = database.now(session)
        applications = serving.routed_applications(human_readable_id)
        names = dict.fromkeys(serving.routed_model_names(human_readable_id))
        _refuse_taken(session, row.id if row else 0, serving.prefix, applications, list(names))
        if row is None:
            row = DeploymentRow(model_id=version.model_id, owner=owner, wanted=0, wanted_at=now, created_at=now)
            session.add(row)
        row.model_version = version
        row.serving = serving.model_dump_json()
        row.prefix, row.application = serving.prefix, applications[0]
        row.failures, row.not_before, row.detail = 0, None, None
        row.updated_at = now
        session.flush()
        session.execute(delete(DeploymentNameRow).where(DeploymentNameRow.deployment_id == row.id))
        session.add_all(DeploymentNameRow(name=name, deployment_id=row.id) for name in names)
        for replica in lock_live_replicas(session, row.id):
            if is_current(replica, row):
                replica.serving, replica.priority = row.serving, serving.priority
    logger.info("deployment=%s version=%s deployed", human_readable_id, version.number)
    return human_readable_id


def undeploy_model(database: Database, human_readable_id: str) -> None:
    """Stop keeping a model warm: its replicas finish their calls and end. Idempotent. Raises `ModelNotFound`."""
    with database.write() as session:
        find_version(session, human_readable_id)
        known = session.scalars(named(human_readable_id)).one_or_none()
        row = lock_deployment(session, known.id if known else None)
        if row is None:
            return
        now = database.now(session)
        for replica in lock_live_replicas(session, row.id):
            drain_replica(replica, ReplicaReason.SURPLUS, now)
        session.flush()
        # A replica can end without its deployment.
        session.execute(update(ReplicaRow).where(ReplicaRow.deployment_id == row.id).values(deployment_id=None))
        session.execute(delete(DeploymentNameRow).where(DeploymentNameRow.deployment_id == row.id))
        session.execute(delete(DeploymentRow).where(DeploymentRow.id == row.id))
    logger.info("deployment=%s removed", human_readable_id)


def _refuse_taken(session: Session, own_id: int, prefix: str | None, applications: list[str], names: list[str]) -> None:
    others = select(DeploymentRow).where(DeploymentRow.id != own_id)
    if prefix is not None:
        _refuse_if(session.scalars(others.where(DeploymentRow.prefix == prefix)).first(), f"the prefix {prefix!r}")
    # Rows have the first application of each; the further ones are in the serving spec.
    leading = {
        application: row
        for row in session.scalars(others)
        for application in serving_of(row).routed_applications(row.model.human_readable_id)
    }
    for application in applications:
        _refuse_if(leading.get(application), f"the application {application!r}")
    named_others = others.join(DeploymentNameRow, DeploymentNameRow.deployment_id == DeploymentRow.id)
    for name in names:
        other = session.scalars(named_others.where(DeploymentNameRow.name == name)).first()
        _refuse_if(other, f"the model name {name!r}")


def _refuse_if(other: DeploymentRow | None, what: str) -> None:
    if other is not None:
        raise NameTaken(f"{what} is that of the deployment {other.model.human_readable_id!r}; choose another")
