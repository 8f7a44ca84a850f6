"""`/api/tasks/<uid>/input/files` and `/output/files`: single files of a task's input or output."""

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Path, Query, Request, Response

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
from contract.zip_rules import name_fault
from kit.http_errors import document_errors
from kit.openapi import OCTETS
from public_api.relay import Relay
from public_api.routes.parameters import Uid, document_download

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
_BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
# The first is the one that every generator of clients knows.
_BYTES: dict[str, Any] = {"content": {OCTETS: _BINARY, "*/*": _BINARY}}
_FILE_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {**_BYTES, "description": "The file. Its `Content-Type` follows from its name."},
    206: {**_BYTES, "description": "The range that was asked for."},
    304: {"description": "The file is the one that `If-None-Match` names."},
    416: {"description": "The range lies outside the file."},
}


async def check_path(
    path: Annotated[
        str,
        Path(
            description="The file's exact path, as the list has it. Encode what has a meaning in URLs, such as `#`, "
            "`?` and `%`; slashes may be encoded or not.",
            examples=["case 1/mask.nii.gz"],
        ),
    ],
) -> str:
    """The path, encoded for a URL. Raises `FileNotFound` for one that no file can have: it might lead elsewhere."""
    if name_fault(path):
        raise FileNotFound
    return quote(path, safe="/")


_FilePath = Annotated[str, Depends(check_path)]


def file_routes(relay: Relay) -> APIRouter:
    router = APIRouter(prefix="/api/tasks", tags=["tasks"])
    for side in _ERRORS:
        _add_list(router, relay, side)
        _add_files(router, relay, side)
    return router


def _add_list(router: APIRouter, relay: Relay, side: str) -> None:
    route, answers = f"/{{uid}}/{side}/files", document_errors(*_ERRORS[side])

    async def list_all(request: Request, uid: Uid, query: Annotated[FileListQuery, Query()]) -> Response:
        return relay.forward(request, f"/api/tasks/{uid}/{side}/files", query=query)

    router.get(f"{route}/", include_in_schema=False)(list_all)
    router.get(
        route,
        name=f"list_{side}_files",
        response_model=list[FileView],
        responses=answers,
        description=f"The files inside the task's {side}, in the order of its zip; folders are left out.\n\n"
        "`after` is the last path of the page before. The files of another owner's task need the scope `admin`.",
    )(list_all)


def _add_files(router: APIRouter, relay: Relay, side: str) -> None:
    route = f"/{{uid}}/{side}/files/{{path:path}}"
    answers = {**_FILE_ANSWERS, **document_errors(*_ERRORS[side], FileNotFound)}

    async def relay_file(request: Request, uid: Uid, path: _FilePath) -> Response:
        return relay.forward(request, f"/api/tasks/{uid}/{side}/files/{path}")

    router.get(
        route,
        name=f"fetch_{side}_file",
        response_class=Response,
        responses=answers,
        dependencies=[Depends(document_download)],
        description=f"One file of the task's {side}, streamed from inside its zip, with `ETag`, `Content-Length` and "
        "one `Range`.\n\nThe answer is a download that no browser shows or runs.",
    )(relay_file)
    router.head(
        route,
        name=f"probe_{side}_file",
        response_class=Response,
        responses=answers,
        description=f"The headers of one file of the task's {side}.",
    )(relay_file)
