"""Path parts and headers that several routes share, checked so that no other upstream path can be reached."""

import re
from typing import Annotated

from fastapi import Depends, Header, Path, Security
from fastapi.security import APIKeyHeader, HTTPBearer

from contract.errors import DeploymentNotFound, ModelNotFound, TaskNotFound, TaskRecordNotFound
from contract.model_versions import MAX_VERSION
from contract.schemas import MODEL_ID_PATTERN, MODEL_REFERENCE_PATTERN, UID_PATTERN
from public_api.routes.examples import EXAMPLE_UID

_UidPart = Annotated[str, Path(description="What the submission answered: 64 hex digits.", examples=[EXAMPLE_UID])]
_ModelIdPart = Annotated[str, Path(description="The model's unique name.", examples=["spleen-segmentation"])]
_ModelReferencePart = Annotated[
    str,
    Path(
        description="The model's unique name, which means its default version, or `<name>@<version>`.",
        examples=["spleen-segmentation", "spleen-segmentation@3"],
    ),
]


_AROUND_A_UID = "\"' \t\r\n"
"""What scripts leave around a uid: the quotes of the JSON that it came in, and the end of a line."""


async def check_uid(uid: _UidPart) -> str:
    """The bare uid. Raises `TaskNotFound` for a malformed one."""
    bare = uid.strip(_AROUND_A_UID)
    if not re.fullmatch(UID_PATTERN, bare):
        raise TaskNotFound
    return bare


async def check_record_uid(uid: _UidPart) -> str:
    """The bare uid. Raises `TaskRecordNotFound` for a malformed one."""
    try:
        return await check_uid(uid)
    except TaskNotFound:
        raise TaskRecordNotFound from None


async def check_model_id(human_readable_id: _ModelIdPart) -> str:
    """The id. Raises `ModelNotFound` for a malformed one."""
    if not re.fullmatch(MODEL_ID_PATTERN, human_readable_id):
        raise ModelNotFound
    return human_readable_id


async def check_model_reference(human_readable_id: _ModelReferencePart) -> str:
    """The id, or the id and a version. Raises `ModelNotFound` for a malformed one."""
    if not re.fullmatch(MODEL_REFERENCE_PATTERN, human_readable_id):
        raise ModelNotFound
    return human_readable_id


async def check_deployment_id(human_readable_id: _ModelIdPart) -> str:
    """The id. Raises `DeploymentNotFound` for a malformed one."""
    if not re.fullmatch(MODEL_ID_PATTERN, human_readable_id):
        raise DeploymentNotFound
    return human_readable_id


Uid = Annotated[str, Depends(check_uid)]
RecordUid = Annotated[str, Depends(check_record_uid)]
ModelIdPart = Annotated[str, Depends(check_model_id)]
ModelReferencePart = Annotated[str, Depends(check_model_reference)]
VersionPart = Annotated[int, Path(ge=1, le=MAX_VERSION, description="The number of a version.", examples=[3])]
DeploymentIdPart = Annotated[str, Depends(check_deployment_id)]


async def document_download(
    range_: Annotated[str | None, Header(alias="Range", description="One range of bytes, as `bytes=1000-`.")] = None,
    if_range: Annotated[str | None, Header(description="The ETag for which the range is meant.")] = None,
    if_none_match: Annotated[str | None, Header(description="An ETag that is known already: 304.")] = None,
) -> None:
    """Put the headers of a download into OpenAPI; the relay forwards them."""


async def document_submission(
    idempotency_key: Annotated[
        str | None, Header(min_length=1, max_length=255, description="The same key and zip answer the same uid.")
    ] = None,
) -> None:
    """Check the header of a submission, and put it into OpenAPI; the relay forwards it."""


_WHEN = "A key, as `inference-server keys create` prints it. Needed where the operator set REQUIRE_API_KEY."
KEY_SCHEMES = [
    Security(APIKeyHeader(name="X-API-Key", scheme_name="key", description=_WHEN, auto_error=False)),
    Security(HTTPBearer(scheme_name="bearer", description=_WHEN, auto_error=False)),
]
"""Put the two ways of sending a key into OpenAPI; the relay passes keys on, and the private API checks them."""
