"""Keys: created, listed, revoked, and resolved to the caller they stand for. Who may do so is for `key_rules`.

A key is `is_<id>_<secret>`. The id finds its row; only the SHA-256 of the secret is stored. A slow hash would add
nothing: 256 random bits cannot be guessed from their hash.
"""

import contextlib
import hashlib
import hmac
import logging
import math
import secrets
import threading
import time
from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta

from sqlalchemy import and_, or_, select, update
from sqlalchemy.orm import Session

from contract.access import KEY_PATTERN, NOT_A_KEY, Caller, Scope
from contract.errors import InvalidRequest, ServiceUnavailable, StorageFull, Unauthenticated
from contract.keys import KeyQuotas, KeyState, KeyView
from private_api.audit.record import OPERATOR, record
from private_api.audit_tables import Action
from private_api.database import Database
from private_api.deployment_tables import DeploymentRow
from private_api.quotas.limits import dump_quotas, parse_quotas
from private_api.tables import ApiKeyRow

logger = logging.getLogger(__name__)

USE_NOTED_EVERY = timedelta(minutes=1)
"""How far `last_used_at` may lag behind: a busy key costs one write in this time."""
ENDED_FOR = timedelta(days=1)
"""How long doors are told that a key has ended: longer than what was opened with it can last unnoticed."""
_NO_DIGEST = "0" * 64
_LONG_AGO = datetime.min.replace(tzinfo=UTC)
_UNKNOWN = "this key is not known here; `inference-server keys create` makes one"


def create_key(
    database: Database,
    *,
    owner: str,
    scopes: Iterable[Scope],
    lifetime: timedelta | None,
    quotas: KeyQuotas | None = None,
) -> str:
    """Create a key and return it, this once: its secret is not stored. `owner` must match `OWNER_PATTERN`."""
    with database.write() as session:
        now = database.now(session)
        expires_at = now + lifetime if lifetime else None
        _, key = add_key(session, owner, scopes, now, expires_at=expires_at, quotas=quotas or {}, by=OPERATOR)
    return key


def add_key(
    session: Session,
    owner: str,
    scopes: Iterable[Scope],
    now: datetime,
    *,
    expires_at: datetime | None,
    quotas: KeyQuotas,
    by: Caller,
) -> tuple[ApiKeyRow, str]:
    """The row of a new key, and the key itself, of which only a hash is stored."""
    key_id, secret = secrets.token_hex(8), secrets.token_hex(32)
    words = " ".join(sorted(set(scopes)))
    row = ApiKeyRow(
        id=key_id,
        secret_sha256=_digest(secret),
        owner=owner,
        scopes=words,
        quotas=dump_quotas(quotas),
        created_at=now,
        expires_at=expires_at,
    )
    session.add(row)
    record(session, by, Action.CREATE_KEY, key_id, now, detail=f"owner={owner} scopes={words}")
    logger.info("key=%s created owner=%s scopes=%s", key_id, owner, words)
    return row, f"is_{key_id}_{secret}"


def replace_key(
    session: Session, row: ApiKeyRow, now: datetime, *, overlap: timedelta, latest: datetime | None = None, by: Caller
) -> tuple[ApiKeyRow, str]:
    """A new key of the same owner that allows the same and lives as long, `latest` at most; the old one ends then.

    Both are valid for the `overlap`, in which clients change over. Raises `InvalidRequest` for a key that has ended.
    """
    if (state := _state(row, now)) is not KeyState.VALID:
        raise InvalidRequest(f"the key {row.id} is {state}, so nobody uses it any more; make another one")
    lifetime = None if row.expires_at is None else row.expires_at - row.created_at
    ends = [moment for moment in (None if lifetime is None else now + lifetime, latest) if moment is not None]
    row.expires_at = min(row.expires_at or now + overlap, now + overlap)
    logger.info("key=%s is replaced, and expires at %s", row.id, row.expires_at.isoformat(timespec="seconds"))
    record(session, by, Action.REPLACE_KEY, row.id, now)
    scopes, quotas, expires_at = map(Scope, row.scopes.split()), parse_quotas(row.quotas), min(ends, default=None)
    made, key = add_key(session, row.owner, scopes, now, expires_at=expires_at, quotas=quotas, by=by)
    # What the old key deployed calls on by the new one.
    session.execute(update(DeploymentRow).where(DeploymentRow.key_id == row.id).values(key_id=made.id))
    return made, key


def rotate_key(database: Database, key_id: str, overlap: timedelta) -> str | None:
    """Replace a key; returns the new one, this once, or None if no key has this id. Raises `InvalidRequest`."""
    with database.write() as session:
        row = session.get(ApiKeyRow, key_id)
        if row is None:
            return None
        _, key = replace_key(session, row, database.now(session), overlap=overlap, by=OPERATOR)
        return key


def list_keys(database: Database, owner: str | None = None) -> list[KeyView]:
    """Every key that was ever created, or those of one owner, oldest first."""
    with database.read() as session:
        now = database.now(session)
        rows = select(ApiKeyRow).order_by(ApiKeyRow.created_at)
        return [view_key(row, now) for row in session.scalars(rows if owner is None else rows.filter_by(owner=owner))]


def revoke_key(database: Database, key_id: str) -> bool:
    """Revoke a key for good. Idempotent. Returns whether a key has this id."""
    with database.write() as session:
        row = session.get(ApiKeyRow, key_id)
        if row is not None:
            end_key(session, row, database.now(session), by=OPERATOR)
        return row is not None


def end_key(session: Session, row: ApiKeyRow, now: datetime, *, by: Caller) -> None:
    """Revoke a key; one that is revoked stays as it is."""
    if row.revoked_at is None:
        row.revoked_at = now
        record(session, by, Action.REVOKE_KEY, row.id, now)
        logger.info("key=%s revoked owner=%s", row.id, row.owner)


def check_key(database: Database, text: str) -> Caller:
    """The caller that a key stands for. Raises `Unauthenticated`.

    The time this takes must not tell whether an id exists: an unknown one costs the same queries and comparison.
    """
    found = check_keys(database, [text])[text]
    if isinstance(found, Unauthenticated):
        raise found
    return found


def check_keys(database: Database, texts: Collection[str]) -> dict[str, Caller | Unauthenticated]:
    """The caller that each of these keys stands for, or why it stands for none."""
    parts = {text: match.groups() for text in texts if (match := KEY_PATTERN.fullmatch(text)) is not None}
    found: dict[str, Caller | Unauthenticated] = {text: Unauthenticated(NOT_A_KEY) for text in texts}
    if parts:
        with database.read() as session:
            ids = {key_id for key_id, _ in parts.values()}
            told = session.execute(select(ApiKeyRow, database.clock()).where(ApiKeyRow.id.in_(ids))).all()
        rows = {row.id: (row, database.told(now)) for row, now in told}
        for text, (key_id, secret) in parts.items():
            try:
                row, now = rows.get(key_id, (None, _LONG_AGO))
                found[text] = _judge(database, row, secret, now)
            except Unauthenticated as error:
                found[text] = error
    return found


def _judge(database: Database, row: ApiKeyRow | None, secret: str, now: datetime) -> Caller:
    """The caller whose key has this row and this secret. Raises `Unauthenticated`."""
    is_right = hmac.compare_digest(_digest(secret), row.secret_sha256 if row else _NO_DIGEST)
    if row is None or not is_right:
        raise Unauthenticated(_UNKNOWN)
    key = view_key(row, now)
    if key.state is not KeyState.VALID:
        # Only the holder of the secret learns this.
        raise Unauthenticated(f"this key is {key.state}; `inference-server keys create` makes another")
    if key.last_used_at is None or now - key.last_used_at >= USE_NOTED_EVERY:
        _note_use(database, key.id, now)
    return Caller(key.owner, frozenset(key.scopes), key.id, quotas=key.quotas)


def keys_that_may(session: Session, scope: Scope, key_ids: Iterable[str], now: datetime) -> frozenset[str]:
    """Those of the keys that are valid and have this scope."""
    rows = session.scalars(select(ApiKeyRow).where(ApiKeyRow.id.in_(key_ids)))
    valid = (row for row in rows if _state(row, now) is KeyState.VALID)
    return frozenset(row.id for row in valid if Caller(row.owner, frozenset(row.scopes.split())).may(scope))


def ended_keys(session: Session, now: datetime) -> list[str]:
    """The ids of the keys that were revoked or expired of late: what their holders still have open must end."""
    since = now - ENDED_FOR
    ended = or_(ApiKeyRow.revoked_at > since, and_(ApiKeyRow.expires_at > since, ApiKeyRow.expires_at <= now))
    return list(session.scalars(select(ApiKeyRow.id).where(ended).order_by(ApiKeyRow.id)))


class EndedKeys:
    """The same for streams that are open, however many: the database is asked once a second. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._read_at = -math.inf
        self._ids: frozenset[str] = frozenset()

    def holds(self, caller: Caller) -> bool:
        """Whether the caller's key has ended. Raises `ServiceUnavailable`."""
        if caller.key_id is None:
            return False
        with self._lock:
            if time.monotonic() - self._read_at >= 1:
                with self._database.read() as session:
                    self._ids = frozenset(ended_keys(session, self._database.now(session)))
                self._read_at = time.monotonic()
            return caller.key_id in self._ids


def _note_use(database: Database, key_id: str, now: datetime) -> None:
    stale = or_(ApiKeyRow.last_used_at.is_(None), ApiKeyRow.last_used_at <= now - USE_NOTED_EVERY)
    # Polls must work while the database can be read but not written.
    with contextlib.suppress(ServiceUnavailable, StorageFull), database.write() as session:
        session.execute(update(ApiKeyRow).where(ApiKeyRow.id == key_id, stale).values(last_used_at=now))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def view_key(row: ApiKeyRow, now: datetime) -> KeyView:
    """A key without its secret."""
    return KeyView(
        id=row.id,
        owner=row.owner,
        scopes=[Scope(word) for word in row.scopes.split()],
        state=_state(row, now),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
        quotas=parse_quotas(row.quotas),
    )


def _state(row: ApiKeyRow, now: datetime) -> KeyState:
    if row.revoked_at is not None:
        return KeyState.REVOKED
    if row.expires_at is not None and row.expires_at <= now:
        return KeyState.EXPIRED
    return KeyState.VALID
