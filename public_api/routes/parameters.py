"""Path parts and headers that several routes share; checked here, so that no other upstream path can be named."""

import re
from typing import Annotated, Any

from fastapi import Depends, Header, Path, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from pydantic import BaseModel

from contract.errors import DeploymentNotFound, ModelNotFound, TaskNotFound, TaskRecordNotFound
from contract.schemas import MODEL_ID_PATTERN, UID_PATTERN

_UidPart = Annotated[str, Path(description="What the submission answered: 64 hex digits.")]


async def check_uid(uid: _UidPart) -> str:
    """The uid. Raises `TaskNotFound` for what cannot be one."""
    if not re.fullmatch(UID_PATTERN, uid):
        raise TaskNotFound
    return uid


async def check_record_uid(uid: _UidPart) -> str:
    """The uid. Raises `TaskRecordNotFound` for what cannot be one."""
    if not re.fullmatch(UID_PATTERN, uid):
        raise TaskRecordNotFound
    return uid


async def check_model_id(human_readable_id: str) -> str:
    """The id. Raises `ModelNotFound` for what cannot be one."""
    if not re.fullmatch(MODEL_ID_PATTERN, human_readable_id):
        raise ModelNotFound
    return human_readable_id


async def check_deployment_id(human_readable_id: str) -> str:
    """The id. Raises `DeploymentNotFound` for what cannot be one."""
    if not re.fullmatch(MODEL_ID_PATTERN, human_readable_id):
        raise DeploymentNotFound
    return human_readable_id


Uid = Annotated[str, Depends(check_uid)]
RecordUid = Annotated[str, Depends(check_record_uid)]
ModelIdPart = Annotated[str, Depends(check_model_id)]
DeploymentIdPart = Annotated[str, Depends(check_deployment_id)]


async def document_download(
    range_: Annotated[str | None, Header(alias="Range", description="One range of bytes, as `bytes=1000-`.")] = None,
    if_range: Annotated[str | None, Header(description="The ETag for which the range is meant.")] = None,
    if_none_match: Annotated[str | None, Header(description="An ETag that is known already: 304.")] = None,
) -> None:
    """Puts the headers of a download into OpenAPI; the relay forwards them."""


async def document_submission(
    idempotency_key: Annotated[
        str | None, Header(min_length=1, max_length=255, description="The same key and zip answer the same uid.")
    ] = None,
) -> None:
    """Checks the header of a submission and puts it into OpenAPI; the relay forwards it."""


_WHEN = "A key, as `inference-server keys create` prints it. Needed where the operator set REQUIRE_API_KEY."
KEY_SCHEMES = [
    Security(APIKeyHeader(name="X-API-Key", scheme_name="key", description=_WHEN, auto_error=False)),
    Security(HTTPBearer(scheme_name="bearer", description=_WHEN, auto_error=False)),
]
"""Puts the two ways of sending a key into OpenAPI; the relay passes keys on and the private API judges them."""


def describe_query(*schemas: type[BaseModel]) -> list[dict[str, Any]]:
    """OpenAPI of the parameters of several query models, none of them required, each name once."""
    described: dict[str, dict[str, Any]] = {}
    for schema in schemas:
        for name, rules in schema.model_json_schema()["properties"].items():
            about = {"description": rules["description"]} if "description" in rules else {}
            described.setdefault(name, {"name": name, "in": "query", "required": False, "schema": rules, **about})
    return list(described.values())
