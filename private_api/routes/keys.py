"""`/api/me`, `/api/quota` and `/api/keys/`: who the caller is and what it may have, and the keys that it may see, make
and revoke."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from contract.errors import InvalidRequest, KeyNotFound
from contract.keys import (
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
from private_api.key_rules import (
    describe_caller,
    list_visible_keys,
    make_key,
    revoke_visible_key,
    rotate_visible_key,
    show_quotas,
)
from private_api.routes.access import GivenCaller, GivenDoor, anonymous_at
from private_api.routes.json_bodies import JsonRouter
from private_api.services import Services


def key_routes(services: Services) -> APIRouter:
    router = JsonRouter(prefix="/api", tags=["keys"])
    database = services.database

    @router.get("/me")
    def show_me(caller: GivenCaller, door: GivenDoor) -> MeView:
        """Who the caller is and what it may do at the door that asks."""
        return describe_caller(database, caller, anonymous_at(door), door)

    @router.get("/quota")
    def show_quota(query: Annotated[QuotaQuery, Query()], caller: GivenCaller) -> OwnerQuotas:
        """What the caller's owner, or another one, may have of the server and has."""
        return show_quotas(database, caller, query.owner, defaults=services.quotas, counted=services.counted)

    @router.get("/keys/", name="list_keys")
    def list_all(query: Annotated[KeyListQuery, Query()], caller: GivenCaller) -> list[KeyView]:
        """The keys that the caller may see, oldest first; `after` is the last id of the page before."""
        return list_visible_keys(database, caller, query)

    @router.post("/keys/", name="create_key")
    def create(wanted: KeyCreation, caller: GivenCaller, response: Response) -> CreatedKey:
        """Make a key. Its secret is in this answer and nowhere else."""
        response.headers["cache-control"] = "no-store"
        return make_key(database, caller, wanted, defaults=services.quotas)

    @router.post("/keys/{key_id}/rotate", name="rotate_key", responses=document_errors(KeyNotFound, InvalidRequest))
    def rotate(key_id: str, rotation: KeyRotation, caller: GivenCaller, response: Response) -> CreatedKey:
        """Replace a key by one that allows the same. Its secret is in this answer and nowhere else."""
        response.headers["cache-control"] = "no-store"
        return rotate_visible_key(database, caller, key_id, rotation, defaults=services.quotas)

    @router.delete("/keys/{key_id}", name="revoke_key", status_code=204, responses=document_errors(KeyNotFound))
    def revoke(key_id: str, caller: GivenCaller) -> None:
        """Revoke a key at once and for good. Again: nothing."""
        revoke_visible_key(database, caller, key_id)

    return router
