"""The files inside a task's input or output, as they are listed."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from contract.schemas import Message, Query
from contract.zip_rules.names import MAX_NAME_BYTES


class FileListQuery(Query):
    """The query of a list of files: keyset pages."""

    limit: Annotated[int, Field(ge=1, le=500, description="At most this many.")] = 100
    after: Annotated[str | None, Field(max_length=MAX_NAME_BYTES, description="The last path of the page before.")] = (
        None
    )


class FileView(Message):
    """A file inside a task's input or output."""

    path: str = Field(description="Its exact name, with folders before it.")
    size_bytes: int
    crc32: str = Field(description="Of its bytes, as 8 hex digits.", pattern="^[0-9a-f]{8}$")
    modified_at: datetime | None = Field(
        description="When it was last changed: of an output in UTC; of an input in UTC if its zip says so, else by the "
        "clock of the machine that made the zip."
    )
    media_type: str = Field(description="What its name says that it is; `application/octet-stream` if unknown.")
