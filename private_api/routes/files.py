"""`/api/tasks/<uid>/input/files` and `/output/files`: single files of a stored zip."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from contract.access import Caller
from contract.errors import (
    FileNotFound,
    InputMissing,
    InvalidArchive,
    InvalidRequest,
    OutputMissing,
    PermissionDenied,
    TaskFailed,
    TaskNotFound,
    TaskPending,
)
from contract.stored_files import FileListQuery, FileView
from contract.zip_rules import list_files
from kit.http_errors import document_errors
from private_api.archives import StoredArchive
from private_api.audit.record import record_alone
from private_api.audit_tables import Action
from private_api.placement.outlook import find_output
from private_api.routes.access import GivenCaller
from private_api.routes.file_answers import answer_file, media_type_of
from private_api.routes.json_bodies import JsonRouter
from private_api.services import Services
from private_api.tasks.files import check_reader, find_input

_ACTIONS = {"input": Action.READ_INPUT, "output": Action.READ_OUTPUT}
_ERRORS = {
    "input": (PermissionDenied, TaskNotFound, InvalidRequest, InvalidArchive, InputMissing),
    "output": (
        PermissionDenied,
        TaskNotFound,
        InvalidRequest,
        InvalidArchive,
        TaskPending,
        TaskFailed,
        OutputMissing,
    ),
}


def file_routes(services: Services) -> APIRouter:
    router = JsonRouter(prefix="/api/tasks", tags=["tasks"])
    for side in _ERRORS:
        _add_side(router, services, side)
    return router


def _add_side(router: APIRouter, services: Services, side: str) -> None:
    database, store = services.database, services.store
    path, errors = f"/{{uid}}/{side}/files", _ERRORS[side]

    def find_archive(uid: str, caller: Caller) -> StoredArchive:
        check_reader(database, uid, caller)
        if side == "input":
            return find_input(database, store, uid, caller)
        return find_output(database, store, services.logs, uid, caller)

    def open_archive(uid: str, caller: Caller) -> StoredArchive:
        """The archive for who reads in it."""
        archive = find_archive(uid, caller)
        record_alone(database, caller, _ACTIONS[side], uid)
        return archive

    @router.get(path, name=f"list_{side}_files", responses=document_errors(*errors))
    def list_all(uid: str, query: Annotated[FileListQuery, Query()], caller: GivenCaller) -> list[FileView]:
        """The files in the order of the zip; `after` is the last path of the page before."""
        with store.path(open_archive(uid, caller).key).open("rb") as file:
            found = list_files(file, after=query.after, limit=query.limit)
        if found is None:
            raise InvalidRequest("after: no file has this path")
        return [
            FileView(
                path=each.path,
                size_bytes=each.size,
                crc32=f"{each.crc:08x}",
                modified_at=each.modified_at,
                media_type=media_type_of(each.path),
            )
            for each in found
        ]

    @router.get(
        path + "/{path:path}",
        name=f"fetch_{side}_file",
        response_class=Response,
        responses=document_errors(*errors, FileNotFound),
    )
    @router.head(path + "/{path:path}", include_in_schema=False)
    def fetch(request: Request, uid: str, path: str, caller: GivenCaller) -> Response:
        """One file with `ETag`, `Content-Length` and one `Range`, streamed from inside the zip."""
        archive = find_archive(uid, caller) if request.method == "HEAD" else open_archive(uid, caller)
        return answer_file(request, store.path(archive.key), archive.sha256, path)
