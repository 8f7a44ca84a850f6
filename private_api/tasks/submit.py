"""A posted zip becomes a queued task."""

import secrets

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from contract.errors import IdempotencyConflict
from contract.logging import log_task
from contract.statuses import Status
from private_api.archives import ArchiveStore, Upload
from private_api.callers import Caller
from private_api.database import Database
from private_api.models import find_version, keep_archive
from private_api.tables import ArchiveRow, TaskRow
from private_api.tasks.rows import logger, ring


def submit_task(
    database: Database,
    store: ArchiveStore,
    upload: Upload,
    *,
    human_readable_id: str,
    idempotency_key: str | None,
    caller: Caller,
    priority: int = 0,
) -> str:
    """Store the checked upload as the input of a new task and return the task's uid once it is durable.

    The same `idempotency_key` of the same owner with the same content returns the first uid. Raises `ModelNotFound`,
    `IdempotencyConflict`.
    """
    if known := _find_submission(database, upload, human_readable_id, idempotency_key, caller.owner):
        return known
    uid = secrets.token_hex(32)
    stored = store.keep(upload, f"inputs/{uid}.zip")
    try:
        with database.write() as session:
            version = find_version(session, human_readable_id)
            now = database.now(session)
            archive = keep_archive(session, stored, now)
            row = TaskRow(
                uid=uid,
                owner=caller.owner,
                idempotency_key=idempotency_key if caller.owner is None else None,
                owner_idempotency_key=None if caller.owner is None else idempotency_key,
                model_version_id=version.id,
                use_gpu=version.use_gpu,
                priority=priority,
                status=Status.QUEUED,
                fence=0,
                not_before=now,
                input_id=archive.id,
                created_at=now,
            )
            session.add(row)
            ring(session, row)
    except IntegrityError:
        # Another request with the same key was faster; its task is the answer.
        store.remove(stored.key)
        if known := _find_submission(database, upload, human_readable_id, idempotency_key, caller.owner):
            return known
        raise
    log_task(logger, uid).info("-> queued model=%s version=%s", human_readable_id, version.number)
    return uid


def _find_submission(
    database: Database, upload: Upload, human_readable_id: str, key: str | None, owner: str | None
) -> str | None:
    if key is None:
        return None
    column = TaskRow.idempotency_key if owner is None else TaskRow.owner_idempotency_key
    with database.read() as session:
        row = session.scalars(select(TaskRow).where(column == key, TaskRow.owner == owner)).one_or_none()
        if row is None:
            return None
        same_model = row.model_version.model.human_readable_id == human_readable_id
        if not same_model or _sha256(session, row.input_id) != upload.sha256:
            raise IdempotencyConflict
        return row.uid


def _sha256(session: Session, archive_id: int) -> str:
    return session.scalars(select(ArchiveRow.sha256).where(ArchiveRow.id == archive_id)).one()
