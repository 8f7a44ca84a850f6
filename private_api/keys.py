"""Keys: made, listed, revoked, and turned into the caller they stand for. The only place that touches their secrets.

A key is `is_<id>_<secret>`: the id finds its row, of the secret only the SHA-256 is stored. A slow hash would add
nothing: 256 random bits cannot be guessed from their hash.
"""

import contextlib
import hashlib
import hmac
import logging
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import or_, select, update

from contract.access import KEY_PATTERN, Scope
from contract.errors import ServiceUnavailable, StorageFull, Unauthenticated
from private_api.callers import Caller
from private_api.database import Database
from private_api.tables import ApiKeyRow

logger = logging.getLogger(__name__)

OWNER_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}"
USE_NOTED_EVERY = timedelta(minutes=1)
"""`last_used_at` is no older than this, and a busy key costs one write in this time."""
_NO_DIGEST = "0" * 64
_UNKNOWN = "this key is not known here; `inference-server keys create` makes one"


@dataclass(frozen=True)
class KeyView:
    """A key without its secret."""

    id: str
    owner: str
    scopes: tuple[Scope, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    state: str
    """`valid`, `expired` or `revoked`."""


def create_key(database: Database, *, owner: str, scopes: Iterable[Scope], lifetime: timedelta | None) -> str:
    """Make a key and return it: nobody can read it again. `owner` must match `OWNER_PATTERN`."""
    key_id, secret = secrets.token_hex(8), secrets.token_hex(32)
    words = " ".join(sorted(set(scopes)))
    with database.write() as session:
        now = database.now(session)
        session.add(
            ApiKeyRow(
                id=key_id,
                secret_sha256=_digest(secret),
                owner=owner,
                scopes=words,
                created_at=now,
                expires_at=now + lifetime if lifetime else None,
            )
        )
    logger.info("key=%s created owner=%s scopes=%s", key_id, owner, words)
    return f"is_{key_id}_{secret}"


def list_keys(database: Database) -> list[KeyView]:
    """Every key that ever was, oldest first."""
    with database.read() as session:
        now = database.now(session)
        return [_view(row, now) for row in session.scalars(select(ApiKeyRow).order_by(ApiKeyRow.created_at))]


def revoke_key(database: Database, key_id: str) -> bool:
    """End a key for good; again: nothing. Returns whether there is one with this id."""
    with database.write() as session:
        row = session.get(ApiKeyRow, key_id)
        if row is None:
            return False
        if row.revoked_at is None:
            row.revoked_at = database.now(session)
            logger.info("key=%s revoked owner=%s", key_id, row.owner)
        return True


def check_key(database: Database, text: str) -> Caller:
    """The caller that a key stands for. Raises `Unauthenticated`.

    Whether an id exists must not show in the time this takes: an unknown one costs the same queries and comparison.
    """
    match = KEY_PATTERN.fullmatch(text)
    if match is None:
        raise Unauthenticated("what was given is not a key: keys look like is_<16 hex digits>_<64 hex digits>")
    key_id, secret = match.groups()
    with database.read() as session:
        row = session.get(ApiKeyRow, key_id)
        now = database.now(session)
    is_right = hmac.compare_digest(_digest(secret), row.secret_sha256 if row else _NO_DIGEST)
    if row is None or not is_right:
        raise Unauthenticated(_UNKNOWN)
    key = _view(row, now)
    if key.state != "valid":
        # Only who has the secret learns this.
        raise Unauthenticated(f"this key is {key.state}; `inference-server keys create` makes another")
    if key.last_used_at is None or now - key.last_used_at >= USE_NOTED_EVERY:
        _note_use(database, key_id, now)
    return Caller(key.owner, frozenset(key.scopes))


def _note_use(database: Database, key_id: str, now: datetime) -> None:
    stale = or_(ApiKeyRow.last_used_at.is_(None), ApiKeyRow.last_used_at <= now - USE_NOTED_EVERY)
    # A database that can be read but not written still answers polls.
    with contextlib.suppress(ServiceUnavailable, StorageFull), database.write() as session:
        session.execute(update(ApiKeyRow).where(ApiKeyRow.id == key_id, stale).values(last_used_at=now))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _view(row: ApiKeyRow, now: datetime) -> KeyView:
    is_expired = row.expires_at is not None and row.expires_at <= now
    return KeyView(
        id=row.id,
        owner=row.owner,
        scopes=tuple(Scope(word) for word in row.scopes.split()),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
        state="revoked" if row.revoked_at else "expired" if is_expired else "valid",
    )
