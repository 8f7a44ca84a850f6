"""The rules of models: registration, versions, and the catalogue."""

import logging
import re
import secrets
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, null, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from contract.access import Caller
from contract.errors import InvalidRequest, ModelExists, ModelNotFound, ModelRetired
from contract.model_versions import ModelChange
from contract.queries import ModelRegistration
from contract.schemas import PROCESS_TAG_PREFIX, ArchiveView, ModelView, PullPolicy
from private_api.archive_rows import keep_archive
from private_api.archives import ArchiveStore, StoredArchive, Upload
from private_api.audit.record import record
from private_api.audit_tables import Action
from private_api.database import Database
from private_api.image_rules import check_image, check_runtime
from private_api.model_owners import change_owner, may_change, require_change, set_first_owner
from private_api.tables import ArchiveRow, ModelRow, ModelVersionRow

logger = logging.getLogger(__name__)

DEFAULT_VERSION = func.coalesce(ModelRow.default_version, ModelRow.newest_version)
"""The number of a model's default version."""
_NOT_OF_A_VERSION = {"human_readable_id", "model_available", "replace", "restricted", "pin"}
_VERSION = re.compile(r"[1-9][0-9]{0,8}")


def parse_reference(reference: str) -> tuple[str, int | None]:
    """The id and the version that `seg@3` names; None for a plain id. Raises `ModelNotFound`."""
    name, at, number = reference.partition("@")
    if not at:
        return name, None
    if not _VERSION.fullmatch(number):
        raise ModelNotFound(f"{reference!r} names no model: a version is a number, as in {name + '@3'!r}")
    return name, int(number)


def find_version(session: Session, reference: str) -> ModelVersionRow:
    """The version that an id or `<id>@<version>` names, of a plain id the default one. Raises `ModelNotFound`."""
    row, _ = _find_version(session, reference, null(), keep=False)
    return row


def take_version(database: Database, session: Session, reference: str) -> tuple[ModelVersionRow, datetime]:
    """The same for something new that will use the version, which nobody can delete until the transaction ends.

    Also returns the time. Raises `ModelNotFound`, `ModelRetired`.
    """
    row, now = _find_version(session, reference, database.clock(), keep=True)
    refuse_retired(row)
    return row, database.told(now)


def name_version(row: ModelVersionRow) -> str:
    """The reference of a version, as `seg@3`."""
    return f"{row.model.human_readable_id}@{row.number}"


def refuse_retired(row: ModelVersionRow) -> None:
    """Raises `ModelRetired` if the version takes no new tasks."""
    name = row.model.human_readable_id
    if row.model.retired_at is not None:
        raise ModelRetired(
            f"the model {name!r} is retired: it takes no new tasks; use another one, or have this one brought back"
        )
    if row.retired_at is not None:
        raise ModelRetired(
            f"version {row.number} of {name!r} is retired: it takes no new tasks; use the default version, {name!r}, "
            "or have this one brought back"
        )


def check_registration(
    database: Database,
    registration: ModelRegistration,
    caller: Caller,
    *,
    allow_process: bool,
    allowed_images: tuple[str, ...] = (),
    runtimes: tuple[str, ...] = (),
) -> None:
    """Refuse before the body is read what can be refused.

    Raises `ModelExists`, `PermissionDenied` for another owner's model or what the operator does not allow, and
    `InvalidRequest`.
    """
    check_image(registration.container_tag, allowed_images)
    check_runtime(registration.runtime, runtimes)
    if registration.container_tag.startswith(PROCESS_TAG_PREFIX):
        if not allow_process:
            raise InvalidRequest(
                f"container_tag: {PROCESS_TAG_PREFIX!r} runs a program without a container; only standalone with "
                "--engine process does that"
            )
        if not registration.model_available:
            raise InvalidRequest(
                "container_tag: the program is part of the model's zip, so model_available must be true"
            )
    with database.read() as session:
        if (model := _find_model(session, registration.human_readable_id)) is not None and _exists(
            session, model.human_readable_id
        ):
            _refuse_known(session, model, registration, caller)


def register_model(
    database: Database, store: ArchiveStore, registration: ModelRegistration, upload: Upload | None, caller: Caller
) -> ModelView:
    """Register a model of the caller's, or with `replace` a new version of it, which becomes the default.

    A model of this id that was deleted is no hindrance: it is the caller's, and its versions are numbered on. Raises
    `ModelExists`, `PermissionDenied` for a model of another owner, `InvalidRequest`.
    """
    if registration.model_available != (upload is not None):
        raise InvalidRequest(
            "model_available is true, but the body has no zip_file"
            if registration.model_available
            else "the body has a zip_file, but model_available is not true"
        )
    # A key of its own: the janitor may be removing a file with the same content.
    stored = store.keep(upload, f"models/{upload.sha256}-{secrets.token_hex(4)}.zip") if upload is not None else None
    try:
        with database.write() as session:
            now = database.now(session)
            # Names that differ in case are no two rows to the database's own constraint.
            database.serialize(session, f"model {registration.human_readable_id.lower()}")
            model = _next_version(session, registration, caller, now)
            archive = _share_archive(session, stored, now) if stored is not None else None
            version = ModelVersionRow(
                model=model,
                number=model.newest_version,
                archive=archive,
                created_at=now,
                pin=registration.pull_policy is PullPolicy.MISSING if registration.pin is None else registration.pin,
                **registration.model_dump(exclude=_NOT_OF_A_VERSION),
            )
            session.add(version)
            session.flush()
            record(
                session, caller, Action.REGISTER_MODEL, name_version(version), now, detail=registration.container_tag
            )
            view = view_model(version, caller)
    except IntegrityError as error:
        raise ModelExists from error
    if stored is not None and archive is not None and archive.key != stored.key:
        store.remove(stored.key)
    logger.info("model=%s version=%s registered image=%s", view.human_readable_id, view.version, view.container_tag)
    return view


def list_models(database: Database, caller: Caller, *, limit: int, after: str | None) -> list[ModelView]:
    """A page of the catalogue, in the order of ids, each model in its default version."""
    statement = (
        select(ModelVersionRow)
        .join(ModelVersionRow.model)
        .where(ModelVersionRow.number == DEFAULT_VERSION, ModelVersionRow.deleted_at.is_(None))
        .where(ModelRow.human_readable_id > (after or ""))
        .order_by(ModelRow.human_readable_id)
        .limit(limit)
    )
    with database.read() as session:
        return [view_model(row, caller) for row in session.scalars(statement)]


def show_model(database: Database, reference: str, caller: Caller) -> ModelView:
    """One model in its default version, or as `<id>@<version>` in this one. Raises `ModelNotFound`."""
    with database.read() as session:
        return view_model(find_version(session, reference), caller)


def view_model(row: ModelVersionRow, caller: Caller) -> ModelView:
    """A model's version as the caller sees it: whose it is, only whoever may change it."""
    is_own = may_change(row.model, caller)
    return ModelView(
        human_readable_id=row.model.human_readable_id,
        version=row.number,
        container_tag=row.container_tag,
        description=row.description,
        model_available=row.archive is not None,
        use_gpu=row.use_gpu,
        pull_policy=row.pull_policy,
        isolation=row.isolation,
        time_limit_s=row.time_limit_s,
        memory_limit_bytes=row.memory_limit_bytes,
        shared_memory_bytes=row.shared_memory_bytes,
        temporary_bytes=row.temporary_bytes,
        pids_limit=row.pids_limit,
        cpus=row.cpus,
        runtime=row.runtime,
        strict_output=row.strict_output,
        archive=view_archive(row.archive),
        created_at=row.created_at,
        retired=row.retired_at is not None or row.model.retired_at is not None,
        pinned_image=row.pinned_image,
        restricted=row.model.restricted,
        owner=row.model.owner if is_own else None,
        users=[user.owner for user in row.model.users] if is_own and row.model.restricted else [],
    )


def stored_archive(row: ArchiveRow | None) -> StoredArchive | None:
    """A stored archive, or None if it was removed."""
    if row is None or row.removed_at is not None:
        return None
    return StoredArchive(row.key, row.sha256, row.size_bytes)


def view_archive(row: ArchiveRow | None) -> ArchiveView | None:
    """An archive as clients see it, or None if it was removed."""
    stored = stored_archive(row)
    return None if stored is None else ArchiveView(sha256=stored.sha256, size_bytes=stored.size_bytes)


def _find_version(
    session: Session, reference: str, beside: ColumnElement[Any], *, keep: bool
) -> tuple[ModelVersionRow, Any]:
    name, number = parse_reference(reference)
    statement = (
        select(ModelVersionRow, beside)
        .join(ModelVersionRow.model)
        .where(ModelRow.human_readable_id == name, ModelVersionRow.deleted_at.is_(None))
        .where(ModelVersionRow.number == (DEFAULT_VERSION if number is None else number))
    )
    if keep:
        statement = statement.with_for_update(read=True, key_share=True, of=ModelVersionRow)
    # Twice: the first may have waited for a transaction that made another version the default and deleted this one.
    for _ in range(2):
        if (found := session.execute(statement).one_or_none()) is not None:
            row, value = found
            return row, value
    if number is not None and _exists(session, name):
        raise ModelNotFound(f"the model {name!r} has no version {number}")
    raise ModelNotFound(f"no model has the human_readable_id {name!r}; GET /api/models/ lists them")


def _exists(session: Session, human_readable_id: str) -> bool:
    statement = select(ModelVersionRow.id).join(ModelVersionRow.model)
    statement = statement.where(ModelRow.human_readable_id == human_readable_id, ModelVersionRow.deleted_at.is_(None))
    return session.scalars(statement.limit(1)).first() is not None


def _find_model(session: Session, human_readable_id: str) -> ModelRow | None:
    """The model of this id however it is spelled, also one that was deleted."""
    spelled = func.lower(ModelRow.human_readable_id) == human_readable_id.lower()
    return session.scalars(select(ModelRow).where(spelled)).one_or_none()


def _refuse_known(session: Session, model: ModelRow, registration: ModelRegistration, caller: Caller) -> None:
    """Raises `ModelExists`, `PermissionDenied` if the registration must not become the next version of the model."""
    name = model.human_readable_id
    if name != registration.human_readable_id:
        raise ModelExists(f"a model with the id {name!r} is registered, and ids are unique regardless of case")
    if not registration.replace:
        raise ModelExists(f"a model with the id {name!r} is registered; replace=true makes a new version")
    require_change(model, caller)


def _next_version(session: Session, registration: ModelRegistration, caller: Caller, now: datetime) -> ModelRow:
    model = _find_model(session, registration.human_readable_id)
    if model is None:
        model = ModelRow(human_readable_id=registration.human_readable_id, newest_version=1, created_at=now)
        set_first_owner(model, caller, restricted=bool(registration.restricted))
        session.add(model)
        session.flush()
        return model
    session.refresh(model, with_for_update=True)
    if _exists(session, model.human_readable_id):
        _refuse_known(session, model, registration, caller)
        change_owner(session, model, ModelChange(restricted=registration.restricted), caller)
    else:
        set_first_owner(model, caller, restricted=bool(registration.restricted))
    # Of one that was deleted, the spelling is the new one's.
    model.human_readable_id = registration.human_readable_id
    model.newest_version += 1
    model.default_version = None
    return model


def _share_archive(session: Session, stored: StoredArchive, now: datetime) -> ArchiveRow:
    """The row of a zip that another version brought, kept from the janitor until the transaction ends, or a new one."""
    statement = (
        select(ArchiveRow)
        .join(ModelVersionRow, ModelVersionRow.archive_id == ArchiveRow.id)
        .where(ArchiveRow.sha256 == stored.sha256, ArchiveRow.removed_at.is_(None))
        .limit(1)
        .with_for_update(read=True, of=ArchiveRow)
    )
    return session.scalars(statement).first() or keep_archive(session, stored, now)
