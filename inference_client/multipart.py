"""A form with one file, made while it is sent: the library's own form needs a file it can read as a whole."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field

from inference_client.pack import OnProgress, Selection


@dataclass(frozen=True)
class MultipartFile:
    """One file field of `multipart/form-data`. `filename` needs no quoting."""

    name: str
    filename: str
    content: Selection
    boundary: str = field(default_factory=lambda: secrets.token_hex(16))

    def headers(self) -> dict[str, str]:
        """What announces the body; its length too, where that is known."""
        headers = {"Content-Type": f"multipart/form-data; boundary={self.boundary}"}
        if self.content.content_length is not None:
            length = len(self._head()) + self.content.content_length + len(self._tail())
            headers["Content-Length"] = str(length)
        return headers

    def chunks(self, on_progress: OnProgress | None = None) -> Iterator[bytes]:
        """The body; may be asked for again."""
        yield self._head()
        yield from self.content.chunks(on_progress)
        yield self._tail()

    def _head(self) -> bytes:
        return (
            f"--{self.boundary}\r\n"
            f'Content-Disposition: form-data; name="{self.name}"; filename="{self.filename}"\r\n'
            "Content-Type: application/zip\r\n\r\n"
        ).encode()

    def _tail(self) -> bytes:
        return f"\r\n--{self.boundary}--\r\n".encode()
