"""Deploying and undeploying models."""

import re

from sqlalchemy import delete, update

from contract.access import Caller
from contract.deployments import ReplicaReason
from contract.errors import InvalidRequest
from contract.schemas import PROCESS_TAG_PREFIX
from contract.serving import ServingSpec
from private_api.audit.record import record
from private_api.audit_tables import Action
from private_api.database import Database
from private_api.deployment_tables import DeploymentRow, ReplicaRow
from private_api.deployments.names import drop_names, store_names, take_names
from private_api.deployments.rows import (
    drain_replica,
    is_current,
    lock_deployment,
    lock_live_replicas,
    logger,
    named,
)
from private_api.model_owners import require_change
from private_api.models import find_version, name_version, take_version

_HOST_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def deploy_model(database: Database, reference: str, serving: ServingSpec, caller: Caller) -> str:
    """Keep a version of a model warm as described. An existing deployment is changed. Returns the model's id.

    The version is that of `<id>@<version>`, of a plain id the default one, for as long as nobody deploys again. The
    scaler replaces replicas whose container is affected; the others stay. Earlier failures are forgotten, because
    whoever deploys again has repaired something. Raises `ModelNotFound`, `PermissionDenied` for a model of another
    owner, `ModelRetired`, `NameTaken`, `InvalidRequest`.
    """
    with database.write() as session:
        # Names are compared with those of every other deployment.
        database.serialize(session, "deployment names")
        version, _ = take_version(database, session, reference)
        require_change(version.model, caller)
        human_readable_id = version.model.human_readable_id
        if serving.express and not _HOST_LABEL.fullmatch(human_readable_id):
            raise InvalidRequest(
                f"express: {human_readable_id!r} would be part of a host name, so it may have letters, digits and '-' "
                "alone"
            )
        if serving.express and version.model.restricted:
            raise InvalidRequest(
                f"express: nobody asks for a key there, and {human_readable_id!r} is for certain owners only"
            )
        if version.container_tag.startswith(PROCESS_TAG_PREFIX):
            raise InvalidRequest(
                f"{human_readable_id!r} is run as a process; only models with an image can be deployed"
            )
        known = session.scalars(named(human_readable_id)).one_or_none()
        row = lock_deployment(session, known.id if known else None)
        now = database.now(session)
        take_names(session, row, version.model, serving, caller)
        if row is None:
            row = DeploymentRow(model_id=version.model_id, owner=caller.owner, wanted=0, wanted_at=now, created_at=now)
            session.add(row)
        row.model_version = version
        row.key_id = caller.key_id
        row.serving = serving.model_dump_json()
        row.prefix, row.application = serving.prefix, serving.routed_applications(human_readable_id)[0]
        row.failures, row.not_before, row.detail = 0, None, None
        row.updated_at = now
        session.flush()
        store_names(session, row, dict.fromkeys(serving.routed_model_names(human_readable_id)))
        for replica in lock_live_replicas(session, row.id):
            if is_current(replica, row):
                replica.serving, replica.priority = row.serving, serving.priority
        record(session, caller, Action.DEPLOY_MODEL, name_version(version), now)
    logger.info("deployment=%s version=%s deployed", human_readable_id, version.number)
    return human_readable_id


def undeploy_model(database: Database, human_readable_id: str, caller: Caller) -> None:
    """Stop keeping a model warm: its replicas finish their calls and end. Idempotent.

    Raises `ModelNotFound`, `PermissionDenied` for a model of another owner.
    """
    with database.write() as session:
        require_change(find_version(session, human_readable_id).model, caller)
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
        drop_names(session, row)
        session.execute(delete(DeploymentRow).where(DeploymentRow.id == row.id))
        record(session, caller, Action.UNDEPLOY_MODEL, human_readable_id, now)
    logger.info("deployment=%s removed", human_readable_id)
