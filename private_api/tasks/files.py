"""Who may read the files and the log of a task, and where its input is."""

from contract.access import Caller
from contract.errors import InputMissing, PermissionDenied
from kit.logging import log_task
from private_api.archives import ArchiveStore, StoredArchive
from private_api.database import Database
from private_api.models import stored_archive
from private_api.tasks.rows import find_task, logger, may_read


def check_reader(database: Database, uid: str, caller: Caller) -> None:
    """Raises `TaskNotFound`, and `PermissionDenied` for a caller who may see the task, but not what it holds.

    That an admin reads the files of another owner is logged.
    """
    with database.read() as session:
        owner = find_task(session, uid, caller).owner
    if not may_read(caller, owner):
        raise PermissionDenied("The files and logs of other owners' tasks need a key with the scope admin.")
    if owner not in (None, caller.owner):
        log_task(logger, uid).info("files or a log of the owner %s are read by the admin %s", owner, caller.owner)


def find_input(database: Database, store: ArchiveStore, uid: str, caller: Caller) -> StoredArchive:
    """The input of a task. Raises `TaskNotFound`, `InputMissing`."""
    with database.read() as session:
        archive = stored_archive(find_task(session, uid, caller).input)
    if archive is None:
        raise InputMissing("the input of this task was removed: the task ended longer ago than KEEP_FINISHED_FOR")
    if not store.path(archive.key).is_file():
        raise InputMissing("the file of this task's input is missing on the server")
    return archive
