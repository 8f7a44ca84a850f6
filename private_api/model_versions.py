"""The versions of a model: which one is the default, which take tasks, and what of them is deleted.

Rows of what is deleted stay, because tasks of the past name them.
"""

import json
from collections import Counter
from datetime import datetime

from sqlalchemy import ColumnElement, Select, delete, func, select
from sqlalchemy.orm import Session

from contract.access import Caller
from contract.errors import ModelInUse, ModelNotFound, ModelRetired
from contract.model_versions import ModelChange, ModelVersionView, VersionChange, VersionListQuery
from contract.schemas import ModelView
from contract.statuses import HELD
from private_api.audit.record import record
from private_api.audit_tables import Action
from private_api.database import Database
from private_api.deployment_tables import DeploymentRow, ReplicaRow, ServedNameRow
from private_api.model_owners import change_owner, require_change
from private_api.models import find_version, logger, name_version, view_archive, view_model
from private_api.tables import ModelRow, ModelVersionRow, TaskRow


def list_versions(database: Database, human_readable_id: str, query: VersionListQuery) -> list[ModelVersionView]:
    """A page of a model's versions, newest first. Raises `ModelNotFound`."""
    with database.read() as session:
        model_id = find_version(session, human_readable_id).model_id
        statement = select(ModelVersionRow).where(
            ModelVersionRow.model_id == model_id, ModelVersionRow.deleted_at.is_(None)
        )
        if query.after is not None:
            statement = statement.where(ModelVersionRow.number < query.after)
        rows = session.scalars(statement.order_by(ModelVersionRow.number.desc()).limit(query.limit)).all()
        return _view(session, list(rows))


def change_model(database: Database, human_readable_id: str, change: ModelChange, caller: Caller) -> ModelView:
    """Change what is given, and return the default version.

    Raises `ModelNotFound`, `PermissionDenied` for a model of another owner, `ModelRetired`, `InvalidRequest`.
    """
    with database.write() as session:
        model = _lock_model(session, human_readable_id, caller)
        change_owner(session, model, change, caller)
        if change.default_version is not None:
            _choose_default(session, model, change.default_version)
        if change.retired is not None:
            model.retired_at = _moment(database.now(session), model.retired_at, retired=change.retired)
        session.flush()
        row = find_version(session, human_readable_id)
        if change.description is not None:
            row.description = change.description
        record(
            session, caller, Action.CHANGE_MODEL, human_readable_id, database.now(session), detail=_say_change(change)
        )
        view = view_model(row, caller)
    logger.info("model=%s changed: %s", human_readable_id, change.model_dump(exclude_none=True))
    return view


def change_version(
    database: Database, human_readable_id: str, number: int, change: VersionChange, caller: Caller
) -> ModelVersionView:
    """Change what is given of one version.

    Raises `ModelNotFound`, `PermissionDenied` for a model of another owner, and `ModelInUse` if the default should
    retire.
    """
    with database.write() as session:
        model = _lock_model(session, human_readable_id, caller)
        row = find_version(session, f"{human_readable_id}@{number}")
        if change.retired and row.number == _default_of(model):
            raise ModelInUse(f"version {number} is the default of {human_readable_id!r}: choose another default first")
        if change.retired is not None:
            row.retired_at = _moment(database.now(session), row.retired_at, retired=change.retired)
        if change.description is not None:
            row.description = change.description
        detail, now = _say_change(change), database.now(session)
        record(session, caller, Action.CHANGE_MODEL, name_version(row), now, detail=detail)
        session.flush()
        (view,) = _view(session, [row])
    logger.info("model=%s version=%s changed: %s", human_readable_id, number, change.model_dump(exclude_none=True))
    return view


def delete_model(database: Database, human_readable_id: str, caller: Caller) -> None:
    """Delete a model with all its versions, and leave its names to others. Idempotent.

    Raises `ModelNotFound` if there never was one, `PermissionDenied` for a model of another owner, `ModelInUse`.
    """
    with database.write() as session:
        model = _lock_model(session, human_readable_id, caller)
        rows = _lock_versions(session, (ModelVersionRow.model_id == model.id) & ModelVersionRow.deleted_at.is_(None))
        _refuse_used(session, f"the model {human_readable_id!r}", rows)
        now = database.now(session)
        for row in rows:
            row.deleted_at = now
        # A model that is registered under this id later begins anew.
        model.default_version = model.retired_at = None
        session.execute(delete(ServedNameRow).where(ServedNameRow.model_id == model.id))
        if rows:
            record(session, caller, Action.DELETE_MODEL, human_readable_id, now)
    logger.info("model=%s deleted", human_readable_id)


def delete_version(database: Database, human_readable_id: str, number: int, caller: Caller) -> None:
    """Delete one version. Idempotent.

    Raises `ModelNotFound` if there never was one, `PermissionDenied` for a model of another owner, `ModelInUse`.
    """
    with database.write() as session:
        model = _lock_model(session, human_readable_id, caller)
        rows = _lock_versions(session, (ModelVersionRow.model_id == model.id) & (ModelVersionRow.number == number))
        if not rows:
            raise ModelNotFound(f"the model {human_readable_id!r} has no version {number}")
        if rows[0].deleted_at is not None:
            return
        if number == _default_of(model):
            raise ModelInUse(
                f"version {number} is the default of {human_readable_id!r}: choose another default first, or delete "
                "the whole model"
            )
        _refuse_used(session, f"version {number} of {human_readable_id!r}", rows)
        rows[0].deleted_at = now = database.now(session)
        record(session, caller, Action.DELETE_MODEL, name_version(rows[0]), now)
    logger.info("model=%s version=%s deleted", human_readable_id, number)


def _lock_model(session: Session, human_readable_id: str, caller: Caller) -> ModelRow:
    """The model, for a change of the caller's. Raises `ModelNotFound`, `PermissionDenied`."""
    # Rows that refer to a locked model can still be written, so whoever locked a version before does not wait for us.
    statement = select(ModelRow).where(ModelRow.human_readable_id == human_readable_id)
    model = session.scalars(statement.with_for_update(key_share=True)).one_or_none()
    if model is None:
        raise ModelNotFound(f"no model has the human_readable_id {human_readable_id!r}; GET /api/models/ lists them")
    require_change(model, caller)
    return model


def _lock_versions(session: Session, condition: ColumnElement[bool]) -> list[ModelVersionRow]:
    """Lock versions against new uses: see `take_version`."""
    statement = select(ModelVersionRow).where(condition).order_by(ModelVersionRow.id)
    return list(session.scalars(statement.with_for_update(of=ModelVersionRow)))


def _default_of(model: ModelRow) -> int:
    return model.newest_version if model.default_version is None else model.default_version


def _choose_default(session: Session, model: ModelRow, number: int) -> None:
    row = find_version(session, f"{model.human_readable_id}@{number}")
    if row.retired_at is not None:
        raise ModelRetired(
            f"version {number} of {model.human_readable_id!r} is retired: bring it back before it becomes the default"
        )
    model.default_version = number


def _say_change(change: ModelChange | VersionChange) -> str:
    """What is changed to what; of a description, which may say anything, only that it was."""
    changed = change.model_dump(mode="json", exclude_none=True)
    return " ".join(name if name == "description" else f"{name}={json.dumps(value)}" for name, value in changed.items())


def _moment(now: datetime, before: datetime | None, *, retired: bool) -> datetime | None:
    return (before or now) if retired else None


def _refuse_used(session: Session, what: str, rows: list[ModelVersionRow]) -> None:
    ids = [row.id for row in rows]
    users: dict[str, Select[int]] = {
        "tasks that have not ended": select(TaskRow.id).where(
            TaskRow.model_version_id.in_(ids), TaskRow.ended_at.is_(None)
        ),
        "deployments": select(DeploymentRow.id).where(DeploymentRow.model_version_id.in_(ids)),
        "replicas that have not ended": select(ReplicaRow.id).where(
            ReplicaRow.model_version_id.in_(ids), ReplicaRow.ended_at.is_(None)
        ),
    }
    counts = {
        user: session.scalar(select(func.count()).select_from(found.subquery())) or 0 for user, found in users.items()
    }
    if found := "; ".join(f"{user}: {count}" for user, count in counts.items() if count):
        raise ModelInUse(
            f"{what} is in use ({found}): cancel its tasks or let them end, undeploy it, and delete it then; once it "
            "is retired, no new tasks come"
        )


def _view(session: Session, rows: list[ModelVersionRow]) -> list[ModelVersionView]:
    ids = [row.id for row in rows]
    open_tasks = (
        select(TaskRow.model_version_id, TaskRow.status, func.count())
        .where(TaskRow.model_version_id.in_(ids), TaskRow.ended_at.is_(None))
        .group_by(TaskRow.model_version_id, TaskRow.status)
    )
    queued, held = Counter[int](), Counter[int]()
    for version_id, status, count in session.execute(open_tasks):
        (held if status in HELD else queued)[version_id] += count
    deployed = select(DeploymentRow.model_version_id).where(DeploymentRow.model_version_id.in_(ids))
    warm = set(session.scalars(deployed))
    return [
        ModelVersionView(
            version=row.number,
            container_tag=row.container_tag,
            description=row.description,
            use_gpu=row.use_gpu,
            strict_output=row.strict_output,
            archive=view_archive(row.archive),
            created_at=row.created_at,
            default=row.number == _default_of(row.model),
            retired=row.retired_at is not None,
            deployed=row.id in warm,
            queued=queued[row.id],
            held=held[row.id],
        )
        for row in rows
    ]
