"""The verifying half of the platform's signed tokens, standard library only.

A token is `<claims>.<signature>`, both base64url without padding: claims are JSON (`sub` the deployment, `own` the
owner or null, `exp` seconds since the epoch or null), the signature an HMAC-SHA256 over the encoded claims.
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


@dataclass(frozen=True)
class Claims:
    """What a token says."""

    subject: str
    owner: str | None
    expires_at: int | None


def peek_subject(token: str) -> str:
    """The deployment that a token claims to be for, unverified. Raises `TokenRefused`."""
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
        subject, owner, expires_at = body["sub"], body["own"], body["exp"]
    except (binascii.Error, ValueError, KeyError, TypeError, RecursionError) as error:
        raise TokenRefused("this is not a token; authenticate first") from error
    if not isinstance(subject, str) or not isinstance(expires_at, int | None) or not isinstance(owner, str | None):
        raise TokenRefused("this is not a token; authenticate first")
    return Claims(subject, owner, expires_at)


def _sign(key: bytes, encoded: str) -> bytes:
    return hmac.new(key, encoded.encode(), hashlib.sha256).digest()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
