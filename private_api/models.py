"""The rules of models: registering, versions, the catalogue."""

import logging
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from contract.errors import InvalidRequest, ModelExists, ModelNotFound
from contract.schemas import PROCESS_TAG_PREFIX, ArchiveView, ModelRegistration, ModelView
from private_api.archives import ArchiveStore, StoredArchive, Upload
from private_api.database import Database
from private_api.tables import ArchiveRow, ModelRow, ModelVersionRow

logger = logging.getLogger(__name__)


def keep_archive(session: Session, stored: StoredArchive, now: datetime) -> ArchiveRow:
    """The row that makes a stored zip visible."""
    archive = ArchiveRow(key=stored.key, sha256=stored.sha256, size_bytes=stored.size_bytes, created_at=now)
    session.add(archive)
    session.flush()
    return archive


def find_version(session: Session, human_readable_id: str) -> ModelVersionRow:
    """The newest version of a model. Raises `ModelNotFound`."""
    statement = (
        select(ModelVersionRow)
        .join(ModelVersionRow.model)
        .where(ModelRow.human_readable_id == human_readable_id, ModelVersionRow.number == ModelRow.newest_version)
    )
    row = session.scalars(statement).one_or_none()
    if row is None:
        raise ModelNotFound(f"no model has the human_readable_id {human_readable_id!r}; GET /api/models/ lists them")
    return row


def check_registration(database: Database, registration: ModelRegistration, *, allow_process: bool) -> None:
    """What can be refused before the body is read. Raises `ModelExists`, `InvalidRequest`."""
    if registration.container_tag.startswith(PROCESS_TAG_PREFIX):
        if not allow_process:
            raise InvalidRequest(
                f"container_tag: {PROCESS_TAG_PREFIX!r} runs a program without a container; only standalone on a "
                "machine without Docker does that"
            )
        if not registration.model_available:
            raise InvalidRequest(
                "container_tag: the program is part of the model's zip, so model_available must be true"
            )
    if registration.replace:
        return
    with database.read() as session:
        _refuse_known(session, registration.human_readable_id)


def register_model(
    database: Database, store: ArchiveStore, registration: ModelRegistration, upload: Upload | None
) -> ModelView:
    """Register a model, or with `replace` a new version of it. Raises `ModelExists`, `InvalidRequest`."""
    if registration.model_available != (upload is not None):
        raise InvalidRequest(
            "model_available is true, but the body has no zip_file"
            if registration.model_available
            else "the body has a zip_file, but model_available is not true"
        )
    # Keyed by content: versions with the same zip share it, and so do the consumers' volumes.
    stored = store.keep(upload, f"models/{upload.sha256}.zip") if upload is not None else None
    try:
        with database.write() as session:
            now = database.now(session)
            model = _next_version(session, registration, now)
            archive = _share_archive(session, stored, now) if stored is not None else None
            version = ModelVersionRow(
                model=model,
                number=model.newest_version,
                archive=archive,
                created_at=now,
                **registration.model_dump(exclude={"human_readable_id", "model_available", "replace"}),
            )
            session.add(version)
            session.flush()
            view = view_model(version)
    except IntegrityError as error:
        raise ModelExists from error
    logger.info("model=%s version=%s registered image=%s", view.human_readable_id, view.version, view.container_tag)
    return view


def list_models(database: Database, *, limit: int, after: str | None) -> list[ModelView]:
    """A page of the catalogue in the order of ids, each model in its newest version."""
    statement = (
        select(ModelVersionRow)
        .join(ModelVersionRow.model)
        .where(ModelVersionRow.number == ModelRow.newest_version, ModelRow.human_readable_id > (after or ""))
        .order_by(ModelRow.human_readable_id)
        .limit(limit)
    )
    with database.read() as session:
        return [view_model(row) for row in session.scalars(statement)]


def show_model(database: Database, human_readable_id: str) -> ModelView:
    """One model. Raises `ModelNotFound`."""
    with database.read() as session:
        return view_model(find_version(session, human_readable_id))


def view_model(row: ModelVersionRow) -> ModelView:
    """A row as clients see it."""
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
        archive=view_archive(row.archive),
        created_at=row.created_at,
    )


def view_archive(row: ArchiveRow | None) -> ArchiveView | None:
    """An archive as clients see it; one that was removed is not there."""
    if row is None or row.removed_at is not None:
        return None
    return ArchiveView(sha256=row.sha256, size_bytes=row.size_bytes)


def _refuse_known(session: Session, human_readable_id: str) -> None:
    if session.scalars(select(ModelRow.id).where(ModelRow.human_readable_id == human_readable_id)).first() is not None:
        raise ModelExists(f"a model with the id {human_readable_id!r} is registered; replace=true makes a new version")


def _next_version(session: Session, registration: ModelRegistration, now: datetime) -> ModelRow:
    statement = select(ModelRow).where(ModelRow.human_readable_id == registration.human_readable_id).with_for_update()
    model = session.scalars(statement).one_or_none()
    if model is None:
        model = ModelRow(human_readable_id=registration.human_readable_id, newest_version=1, created_at=now)
        session.add(model)
        session.flush()
    elif registration.replace:
        model.newest_version += 1
    else:
        _refuse_known(session, registration.human_readable_id)
    return model


def _share_archive(session: Session, stored: StoredArchive, now: datetime) -> ArchiveRow:
    known = session.scalars(select(ArchiveRow).where(ArchiveRow.key == stored.key)).one_or_none()
    return known or keep_archive(session, stored, now)
