"""The versions of a model: how they are listed, and what of them can be changed."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from contract.schemas import ArchiveView, Message, OwnerName, Query

MAX_VERSION = 999_999_999
"""As many digits as `MODEL_REFERENCE_PATTERN` takes."""

VersionNumber = Annotated[int, Field(ge=1, le=MAX_VERSION)]
_Description = Annotated[str | None, Field(max_length=4096, description="The new text for people.")]


class VersionListQuery(Query):
    """The query of `GET /api/models/{human_readable_id}/versions`: keyset pages, newest first."""

    limit: Annotated[int, Field(ge=1, le=500, description="At most this many.")] = 100
    after: Annotated[VersionNumber | None, Field(description="The last version of the page before.")] = None


class ModelVersionView(Message):
    """A version of a model, and what uses it now."""

    version: int
    container_tag: str
    description: str
    use_gpu: bool
    strict_output: bool = Field(description="Whether an output with anything that cannot travel is refused.")
    archive: ArchiveView | None
    created_at: datetime
    default: bool = Field(description="Whether the plain id of the model means this version.")
    retired: bool = Field(description="Whether this version takes no new tasks, even while the model takes some.")
    deployed: bool = Field(description="Whether the model's deployment is of this version.")
    queued: int = Field(description="Its tasks that wait.")
    held: int = Field(description="Its tasks that a consumer prepares, runs or delivers.")


class _Change(BaseModel):
    # An unknown member is refused: whoever misspells one would believe that it was changed.
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelChange(_Change):
    """The body of `PATCH /api/models/{human_readable_id}`: what is left out or null stays as it is."""

    default_version: Annotated[
        VersionNumber | None, Field(description="The version that the plain id means from now on.")
    ] = None
    description: _Description = None
    retired: Annotated[
        bool | None, Field(description="true: no version takes new tasks, or is deployed anew. false: brings it back.")
    ] = None
    restricted: Annotated[
        bool | None, Field(description="true: only its owner and `users` may use it. false: everybody may.")
    ] = None
    users: Annotated[
        list[OwnerName] | None,
        Field(max_length=1000, description="The owners who may use it while it is restricted, beside its own."),
    ] = None
    owner: Annotated[
        OwnerName | None, Field(description="Whose it is from now on; takes a key with the scope `operate`.")
    ] = None


class VersionChange(_Change):
    """The body of `PATCH /api/models/{human_readable_id}/versions/{version}`: as above, for one version."""

    description: _Description = None
    retired: Annotated[
        bool | None, Field(description="true: it takes no new tasks, and is not deployed anew. false: brings it back.")
    ] = None
