"""Single files of a task's input or output: their list, and their bytes as a stream."""

from collections.abc import Iterator
from datetime import datetime
from typing import Literal

from inference_client.answers import Answer
from inference_client.client_base import ClientBase
from inference_client.download import RESUMES
from inference_client.errors import DamagedDownload, ServiceUnavailable
from inference_client.paths import segment

Side = Literal["input", "output"]
_PARTIAL = 206


class FileView(Answer):
    """A file inside a task's input or output."""

    path: str
    size_bytes: int
    crc32: str
    """8 hex digits."""
    modified_at: datetime | None
    media_type: str


class StoredFiles(ClientBase):
    """The calls about single files. Of another owner's task they need a key with the scope admin."""

    def list_files(self, uid: str, *, of: Side = "output") -> Iterator[FileView]:
        """The files inside the task's output or input, fetched page by page; folders are left out.

        Raises `TaskPending`, `TaskFailed` or `OutputMissing` if there is no output, `InputMissing`, `PermissionDenied`.
        """
        return self._pages(f"/api/tasks/{segment(uid)}/{of}/files", FileView, lambda file: file.path)

    def read_file(self, uid: str, path: str, *, of: Side = "output") -> Iterator[bytes]:
        """The bytes of one file in pieces, whatever else its zip holds; `path` is exact, as `list_files` gives it.

        A cut connection is resumed up to `download.RESUMES` times. Raises `FileNotFound` and what `list_files` raises,
        and `DamagedDownload` if the file changed meanwhile.
        """
        parts = "/".join(segment(part) for part in path.split("/"))
        url = f"/api/tasks/{segment(uid)}/{of}/files/{parts}"
        position, etag, failures = 0, "", 0
        while True:
            resumed = {"Range": f"bytes={position}-", "If-Range": etag} if position else {}
            try:
                with self._connection.open("GET", url, headers={"Accept-Encoding": "identity", **resumed}) as response:
                    if resumed and response.status_code != _PARTIAL:
                        raise DamagedDownload(f"{path} is not the file any more that it was; fetch it again")
                    etag = response.headers.get("ETag", "")
                    # Without a chunk size: the library would drop a chunk that a cut left incomplete.
                    for chunk in response.iter_raw():
                        position += len(chunk)
                        yield chunk
                return
            except ServiceUnavailable as error:
                failures += 1
                self._connection.pause_or_raise(error, failures, tries=RESUMES + 1)
