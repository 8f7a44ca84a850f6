"""`/api/me`, `/api/quota` and `/api/keys/`: who the caller is and what it may have, and the keys that it may see, make
and revoke."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from contract.errors import KeyNotFound, TooLarge
from contract.keys import (
    KEY_ID_PATTERN,
    CreatedKey,
    KeyCreation,
    KeyListQuery,
    KeyRotation,
    KeyView,
    MeView,
    OwnerQuotas,
    QuotaQuery,
)
from kit.http_errors import document_errors
from public_api.relay import Relay

_SCHEMA = KeyCreation.model_json_schema(ref_template="#/components/schemas/{model}")
# The body is relayed as it comes, and judged by the private API.


def _body(schema: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    """What OpenAPI says of a body that the relay passes on."""
    described = {name: value for name, value in schema.items() if name != "$defs"}
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": described, "example": example}}}
    }


_BODY = _body(_SCHEMA, {"scopes": ["submit"], "lifetime_s": 90 * 24 * 3600})
_ROTATION = _body(KeyRotation.model_json_schema(), {"overlap_s": 7 * 24 * 3600})


async def _check_key_id(
    key_id: Annotated[str, Path(description="The part between the underscores.", examples=["0123456789abcdef"])],
) -> str:
    if not re.fullmatch(KEY_ID_PATTERN, key_id):
        raise KeyNotFound
    return key_id


def key_routes(relay: Relay) -> APIRouter:
    router = APIRouter(prefix="/api", tags=["keys"])

    @router.get("/me/", include_in_schema=False)
    @router.get("/me", response_model=MeView)
    async def show_me(request: Request) -> Response:
        """Who the caller is: the key, its owner, scopes and expiry; and what goes here without a key."""
        return relay.forward(request, "/api/me")

    @router.get("/quota/", include_in_schema=False)
    @router.get("/quota", response_model=OwnerQuotas)
    async def show_quota(request: Request, query: Annotated[QuotaQuery, Query()]) -> Response:
        """What the key's owner may have of the server, tasks, bytes and uploads, and how much of it is used.

        Without a key there are no quotas. With `owner`: what the server allows a key of that owner that has no limits
        of its own, and what that owner uses; another one's needs the scope `operate`.
        """
        return relay.forward(request, "/api/quota", query=query)

    @router.get("/keys", include_in_schema=False)
    @router.get("/keys/", response_model=list[KeyView])
    async def list_keys(request: Request, query: Annotated[KeyListQuery, Query()]) -> Response:
        """The keys of the caller's owner, with the scope `admin` everybody's, oldest first and without their secrets.

        Needs the scope `keys`. `after` is the last id of the page before.
        """
        return relay.forward(request, "/api/keys/", query=query)

    @router.post("/keys", include_in_schema=False)
    @router.post("/keys/", response_model=CreatedKey, openapi_extra=_BODY, responses=document_errors(TooLarge))
    async def create_key(request: Request) -> Response:
        """Make a key that may do, has, and lives, no more than the one that makes it. Its secret is shown this once.

        Needs the scope `keys`; for another owner `admin`.
        """
        return relay.forward(request, "/api/keys/", with_body=True)

    @router.post(
        "/keys/{key_id}/rotate",
        response_model=CreatedKey,
        openapi_extra=_ROTATION,
        responses=document_errors(KeyNotFound, TooLarge),
    )
    async def rotate_key(request: Request, key_id: Annotated[str, Depends(_check_key_id)]) -> Response:
        """Replace a key by a new one of the same owner that allows the same; its secret is shown this once.

        Both are valid for `overlap_s`, in which clients change over. Needs the scope `keys`; another owner's `admin`.
        """
        return relay.forward(request, f"/api/keys/{key_id}/rotate", with_body=True)

    @router.delete("/keys/{key_id}", status_code=204, response_class=Response, responses=document_errors(KeyNotFound))
    async def revoke_key(request: Request, key_id: Annotated[str, Depends(_check_key_id)]) -> Response:
        """Revoke a key of the caller's owner, with the scope `admin` anybody's, for good. Again: nothing."""
        return relay.forward(request, f"/api/keys/{key_id}")

    return router
