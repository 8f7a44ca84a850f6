"""Signed tokens that nobody stores: they let a caller stream to a deployment, and a replica call the gateway.

A token is `<claims>.<signature>`, both base64url without padding: claims are JSON, the signature an HMAC-SHA256 over
them. Every purpose has a key of its own, derived from the service token, so that a container that has one key can make
no token for anything else. Standard library only: the runtimes of models carry a copy of the verifying half.
"""

import base64
import binascii
import hashlib
import hmac
import json
import time
from dataclasses import dataclass
from typing import Any


class TokenRefused(Exception):
    """The token is malformed, forged or expired. The text is for its holder and reveals no secret."""


def stream_key(service_token: str, deployment: str) -> bytes:
    """The key that signs tokens for streams to one deployment; its replicas get it."""
    return _derive(service_token, f"stream {deployment}")


def replica_key(service_token: str) -> bytes:
    """The key that signs the tokens of replicas; no container gets it."""
    return _derive(service_token, "replica")


@dataclass(frozen=True)
class Claims:
    """The content of a token."""

    subject: str
    """The deployment, or the replica's uid."""
    owner: str | None
    """The owner of the key that it was made for; None in the open mode."""
    expires_at: int | None
    """Seconds since the epoch; None if it never expires."""
    key_id: str | None = None
    """The public part of the key that it was made for, with which it ends."""
    is_inside: bool = False
    """Whether it is honoured only where containers of deployments call. Releases before made none of these."""


def sign_token(key: bytes, claims: Claims) -> str:
    """A token with these claims."""
    body = {"sub": claims.subject, "own": claims.owner, "exp": claims.expires_at}
    body |= {"kid": claims.key_id} if claims.key_id is not None else {}
    body |= {"in": True} if claims.is_inside else {}
    encoded = _encode(json.dumps(body, separators=(",", ":")).encode())
    return f"{encoded}.{_encode(_sign(key, encoded))}"


def peek_subject(token: str) -> str:
    """The subject that a token claims, unverified: it tells which key to verify with. Raises `TokenRefused`."""
    return _read(token.partition(".")[0]).subject


def verify_token(key: bytes, token: str, *, now: float | None = None) -> Claims:
    """The claims of a token signed with `key` that has not expired. Raises `TokenRefused`."""
    encoded, _, signature = token.partition(".")
    if not hmac.compare_digest(_encode(_sign(key, encoded)).encode(), signature.encode()):
        raise TokenRefused("the token was not issued here; authenticate again")
    claims = _read(encoded)
    if claims.expires_at is not None and claims.expires_at <= (time.time() if now is None else now):
        raise TokenRefused("the token has expired; authenticate again")
    return claims


def _read(encoded: str) -> Claims:
    try:
        body: Any = json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
        subject, owner, expires_at, key_id = body["sub"], body["own"], body["exp"], body.get("kid")
        is_inside = body.get("in") is True
    except (binascii.Error, ValueError, KeyError, TypeError, RecursionError) as error:
        raise TokenRefused("this is not a token; authenticate first") from error
    is_whole = isinstance(subject, str) and isinstance(expires_at, int | None) and isinstance(owner, str | None)
    if not is_whole or not isinstance(key_id, str | None):
        raise TokenRefused("this is not a token; authenticate first")
    return Claims(subject, owner, expires_at, key_id, is_inside)


def _derive(service_token: str, purpose: str) -> bytes:
    return hmac.new(service_token.encode(), f"inference-server {purpose}".encode(), hashlib.sha256).digest()


def _sign(key: bytes, encoded: str) -> bytes:
    return hmac.new(key, encoded.encode(), hashlib.sha256).digest()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
