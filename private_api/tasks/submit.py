"""Submission: a posted zip becomes a queued task."""

import secrets
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ScalarSelect, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from contract.access import Caller
from contract.errors import IdempotencyConflict, ModelNotFound, ModelRetired, PermissionDenied, QuotaExceeded
from contract.statuses import Status
from kit.failpoints import reach
from kit.logging import log_task
from private_api.archive_rows import add_archive
from private_api.archives import ArchiveStore, Upload
from private_api.audit.record import record
from private_api.audit_tables import Action
from private_api.database import Database
from private_api.failpoints import Failpoint
from private_api.model_owners import require_use
from private_api.models import (
    find_version,
    name_version,
    parse_reference,
    refuse_retired,
    take_version,
)
from private_api.quotas.admission import Addition, admit, are_counted, check_quotas
from private_api.quotas.limits import NO_LIMITS, Limits, limits_of
from private_api.quotas.running import stored_limit
from private_api.round_trips import add_later
from private_api.tables import ArchiveRow, ModelVersionRow, TaskRow
from private_api.tasks.rows import logger, ring


@dataclass(frozen=True)
class NewTask:
    """What a task is made of."""

    uid: str
    owner: str | None
    version: ModelVersionRow
    input_id: ScalarSelect[int]
    priority: int
    idempotency_key: str | None
    label: str | None
    running_limit: int | None = None
    rerun_of: str | None = None


def check_submission(
    database: Database,
    reference: str,
    *,
    idempotency_key: str | None,
    caller: Caller,
    defaults: Limits = NO_LIMITS,
    size_bytes: int = 1,
) -> None:
    """Refuse before the body is read what can be refused; `size_bytes` is how much will be read at least.

    Raises `ModelNotFound`, `PermissionDenied` for a caller who may not use the model, `ModelRetired`, `QuotaExceeded`.
    """
    with database.read() as session:
        try:
            version = find_version(session, reference)
            require_use(version.model, caller.owner)
            refuse_retired(version)
            limits, addition = limits_of(caller, defaults), Addition(size_bytes)
            if are_counted(caller.owner, limits):
                check_quotas(session, caller.owner, limits, addition, database.now(session))
        except (ModelNotFound, PermissionDenied, ModelRetired, QuotaExceeded):
            # Whoever repeats a submission gets its uid, whatever became of the model meanwhile.
            if find_by_key(session, idempotency_key, caller.owner) is None:
                raise


def submit_task(
    database: Database,
    store: ArchiveStore,
    upload: Upload,
    *,
    reference: str,
    idempotency_key: str | None,
    caller: Caller,
    priority: int = 0,
    label: str | None = None,
    defaults: Limits = NO_LIMITS,
) -> str:
    """Store the checked upload as the input of a new task. Returns the task's uid once the task is durable.

    `reference` is the model's id, or `<id>@<version>`. The same content under the same owner's `idempotency_key`
    returns the first uid again. `defaults` are the server's limits. Raises `ModelNotFound`, `PermissionDenied` for a
    caller who may not use the model, `ModelRetired`, `IdempotencyConflict`, `QuotaExceeded`.
    """
    if known := _find_submission(database, upload, reference, idempotency_key, caller.owner):
        return known
    uid = secrets.token_hex(32)
    reach(Failpoint.SUBMIT_RECEIVED)
    stored = store.keep(upload, f"inputs/{uid}.zip")
    reach(Failpoint.SUBMIT_STORED)
    try:
        with database.write() as session:
            version, now = take_version(database, session, reference)
            require_use(version.model, caller.owner)
            admit(database, session, caller.owner, limits_of(caller, defaults), Addition(stored.size_bytes))
            archive = add_archive(session, stored, now, owner=caller.owner)
            running_limit = stored_limit(caller.quotas)
            task = NewTask(uid, caller.owner, version, archive, priority, idempotency_key, label, running_limit)
            queue_task(session, task, now)
            record(session, caller, Action.SUBMIT_TASK, uid, now, detail=name_version(version))
    except (IntegrityError, QuotaExceeded):
        # The janitor would leave it there for a day.
        store.remove(stored.key)
        # Another request with the same key may have been faster: return its task.
        if known := _find_submission(database, upload, reference, idempotency_key, caller.owner):
            return known
        raise
    reach(Failpoint.SUBMIT_COMMITTED)
    log_task(logger, uid).info("-> queued model=%s version=%s", version.model.human_readable_id, version.number)
    return uid


def queue_task(session: Session, task: NewTask, now: datetime) -> None:
    """Add the row of a new task and its bell."""
    row = TaskRow(
        uid=task.uid,
        owner=task.owner,
        idempotency_key=task.idempotency_key if task.owner is None else None,
        owner_idempotency_key=None if task.owner is None else task.idempotency_key,
        model_version_id=task.version.id,
        use_gpu=task.version.use_gpu,
        priority=task.priority,
        running_limit=task.running_limit,
        label=task.label,
        status=Status.QUEUED,
        fence=0,
        not_before=now,
        input_id=task.input_id,
        rerun_of=task.rerun_of,
        created_at=now,
    )
    add_later(session, row)
    ring(session, row)


def find_by_key(session: Session, key: str | None, owner: str | None) -> TaskRow | None:
    """The task that was submitted under an owner's idempotency key, if there is one."""
    if key is None:
        return None
    column = TaskRow.idempotency_key if owner is None else TaskRow.owner_idempotency_key
    return session.scalars(select(TaskRow).where(column == key, TaskRow.owner == owner)).one_or_none()


def _find_submission(
    database: Database, upload: Upload, reference: str, key: str | None, owner: str | None
) -> str | None:
    with database.read() as session:
        row = find_by_key(session, key, owner)
        if row is None:
            return None
        name, number = parse_reference(reference)
        version = row.model_version
        same_model = version.model.human_readable_id == name and number in (None, version.number)
        if not same_model or _sha256(session, row.input_id) != upload.sha256:
            raise IdempotencyConflict
        return row.uid


def _sha256(session: Session, archive_id: int) -> str:
    return session.scalars(select(ArchiveRow.sha256).where(ArchiveRow.id == archive_id)).one()
