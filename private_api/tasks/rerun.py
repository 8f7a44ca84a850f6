"""Reruns: a new task with the stored input of another one."""

import secrets
from dataclasses import dataclass

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from contract.access import Caller
from contract.errors import IdempotencyConflict, InputMissing, QuotaExceeded
from contract.reruns import RerunVersion
from kit.logging import log_task
from private_api.archive_rows import add_archive
from private_api.archives import ArchiveStore, StoredArchive
from private_api.audit.record import record
from private_api.audit_tables import Action
from private_api.database import Database
from private_api.model_owners import require_use
from private_api.models import name_version, stored_archive, take_version
from private_api.quotas.admission import Addition, admit
from private_api.quotas.limits import NO_LIMITS, Limits, limits_of
from private_api.quotas.running import stored_limit
from private_api.tables import TaskRow
from private_api.tasks.rows import find_task, logger
from private_api.tasks.submit import NewTask, find_by_key, queue_task


@dataclass(frozen=True)
class RerunOptions:
    """How a task is run again."""

    version: RerunVersion = RerunVersion.SAME
    priority: int = 0
    idempotency_key: str | None = None


def rerun_task(
    database: Database,
    store: ArchiveStore,
    uid: str,
    caller: Caller,
    options: RerunOptions,
    *,
    defaults: Limits = NO_LIMITS,
) -> str:
    """Queue a new task with the input of the task `uid`, whether that has ended or not. Returns the new task's uid.

    The new task belongs to the owner of the first one, so that a key with the scope operate gets at nobody's files by
    it; where that has none, to the caller. It counts in that owner's quotas: what is stored as if it were a copy, what
    is uploaded not at all. `defaults` are the server's limits. The same rerun under the same owner's idempotency key
    returns the first answer again. Raises `TaskNotFound`, `ModelNotFound`, `PermissionDenied` if the owner may not use
    the model, `ModelRetired`, `InputMissing`, `IdempotencyConflict`, `QuotaExceeded`.
    """
    with database.read() as session:
        first = find_task(session, uid, caller)
        owner = caller.owner if first.owner is None else first.owner
        if known := _find_rerun(session, first, owner, options):
            return known
        source = stored_archive(first.input)
    # Another caller's own limits are not the owner's.
    is_own = owner == caller.owner
    limits = limits_of(caller, defaults) if is_own else defaults
    running_limit = stored_limit(caller.quotas) if is_own else first.running_limit
    new_uid = secrets.token_hex(32)
    stored = _share_input(store, source, new_uid)
    try:
        with database.write() as session:
            version, now = take_version(database, session, _reference(first, options.version))
            require_use(version.model, owner)
            admit(database, session, owner, limits, Addition(stored.size_bytes, is_upload=False))
            archive = add_archive(session, stored, now, owner=owner)
            key, label = options.idempotency_key, first.label
            task = NewTask(new_uid, owner, version, archive, options.priority, key, label, running_limit, rerun_of=uid)
            queue_task(session, task, now)
            detail = f"{name_version(version)}, of the task {uid}"
            record(session, caller, Action.RERUN_TASK, new_uid, now, detail=detail)
    except (IntegrityError, QuotaExceeded):
        # The janitor would leave it there for a day.
        store.remove(stored.key)
        # Another request with the same key may have been faster: return its task.
        with database.read() as session:
            if known := _find_rerun(session, first, owner, options):
                return known
        raise
    log_task(logger, new_uid).info("-> queued as a rerun of %s version=%s", uid, version.number)
    return new_uid


def _reference(first: TaskRow, version: RerunVersion) -> str:
    same = first.model_version
    name = same.model.human_readable_id
    return f"{name}@{same.number}" if version is RerunVersion.SAME else name


def _find_rerun(session: Session, first: TaskRow, owner: str | None, options: RerunOptions) -> str | None:
    """The rerun that was made under this key. Raises `IdempotencyConflict` if the key stands for something else."""
    if options.idempotency_key is None:
        return None
    row = find_by_key(session, options.idempotency_key, owner)
    if row is None:
        return None
    # A default may have changed since, so the version is compared only where it is asked for.
    is_other = options.version is RerunVersion.SAME and row.model_version_id != first.model_version_id
    if row.rerun_of != first.uid or is_other:
        raise IdempotencyConflict
    return row.uid


def _share_input(store: ArchiveStore, source: StoredArchive | None, uid: str) -> StoredArchive:
    if source is None:
        raise InputMissing("the input of this task is no longer stored, so it cannot be run again; submit it again")
    try:
        return store.share(source, f"inputs/{uid}.zip")
    except FileNotFoundError as error:
        raise InputMissing("the file of this task's input is missing on the server; submit it again") from error
