"""Calls about keys: who the caller is and what it may have, and the keys that it may see, make and revoke."""

import json
from collections.abc import Iterator, Mapping, Sequence

from inference_client.client_base import ClientBase
from inference_client.key_schemas import CreatedKey, KeyView, MeView, OwnerQuotas
from inference_client.paths import segment
from inference_client.statuses import Quota, Scope


class KeyCalls(ClientBase):
    """Part of `InferenceClient`."""

    def whoami(self) -> MeView:
        """Who this key makes the caller, and what it allows; without a key, what goes without one."""
        return self._get(MeView, "/api/me")

    def quota(self, *, owner: str | None = None) -> OwnerQuotas:
        """What the key's owner may have of the server, and how much of it is used.

        With the scope operate of another `owner` too: what the server allows a key of that owner without limits of its
        own. Raises `PermissionDenied`.
        """
        return self._get(OwnerQuotas, "/api/quota", None if owner is None else {"owner": owner})

    def list_keys(self, *, owner: str | None = None) -> Iterator[KeyView]:
        """The keys of the key's owner, with the scope admin everybody's, oldest first, fetched page by page.

        Raises `Unauthenticated` without a key, `PermissionDenied` without the scope keys or for another owner's.
        """
        filters: dict[str, str | list[str]] = {} if owner is None else {"owner": owner}
        return self._pages("/api/keys/", KeyView, lambda key: key.id, filters)

    def create_key(
        self,
        scopes: Sequence[Scope | str],
        *,
        owner: str | None = None,
        lifetime_s: int | None = None,
        quotas: Mapping[Quota, int | None] | Mapping[str, int | None] | None = None,
    ) -> CreatedKey:
        """Make a key, which the answer shows this once. Another `owner` needs the scope admin.

        `quotas` are limits of its own, None for no limit; of every other quota it has the server's. It may do and have
        no more, and lives no longer, than the key that makes it. Never tried twice: that would make two keys.
        Raises `Unauthenticated` without a key, `PermissionDenied`, `InvalidRequest`.
        """
        named = {str(quota): limit for quota, limit in quotas.items()} if quotas else None
        words = [str(scope) for scope in scopes]
        body = {"scopes": words, "owner": owner, "lifetime_s": lifetime_s, "quotas": named}
        given = json.dumps({name: value for name, value in body.items() if value is not None}).encode()
        answer = self._connection.call(
            "POST",
            "/api/keys/",
            headers={"Content-Type": "application/json"},
            body=lambda: [given],
            repeatable=False,
        )
        return self._parse(CreatedKey, answer)

    def rotate_key(self, key_id: str, *, overlap_s: int = 24 * 3600) -> CreatedKey:
        """Replace a key by a new one of the same owner that allows the same, which the answer shows this once.

        The old one stays valid for `overlap_s` seconds. Never tried twice: that would make two keys. Raises
        `KeyNotFound`, `PermissionDenied`, and `InvalidRequest` for a key that has ended.
        """
        given = json.dumps({"overlap_s": overlap_s}).encode()
        answer = self._connection.call(
            "POST",
            f"/api/keys/{segment(key_id)}/rotate",
            headers={"Content-Type": "application/json"},
            body=lambda: [given],
            repeatable=False,
        )
        return self._parse(CreatedKey, answer)

    def revoke_key(self, key_id: str) -> None:
        """End a key at once and for good; doing so twice is not an error. Raises `KeyNotFound`, `PermissionDenied`."""
        self._connection.call("DELETE", f"/api/keys/{segment(key_id)}", repeatable=True)
