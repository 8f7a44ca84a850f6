"""Who may see, make and revoke which keys. No key makes one that may do more, or lives longer, than it does itself."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, or_, select, true
from sqlalchemy.orm import Session

from contract.access import Caller, DoorPolicy, Scope
from contract.errors import InvalidRequest, KeyNotFound, PermissionDenied, Unauthenticated
from contract.keys import CreatedKey, KeyCreation, KeyListQuery, KeyQuotas, KeyRotation, KeyView, MeView, OwnerQuotas
from contract.quotas import Quota
from private_api.database import Database
from private_api.keys import add_key, end_key, replace_key, view_key
from private_api.quotas.limits import NO_LIMITS, Limits, exceeding, limits_of, parse_quotas
from private_api.quotas.usage import read_quotas
from private_api.tables import ApiKeyRow

_MISSING = "This key may not manage keys: it lacks the scope keys."


def describe_caller(database: Database, caller: Caller, anonymous: Caller | None, door: DoorPolicy) -> MeView:
    """Who the caller is; `anonymous` is what one without a key would be, None where there is no such caller."""
    expires_at = None
    if caller.key_id is not None:
        with database.read() as session:
            expires_at = session.get_one(ApiKeyRow, caller.key_id).expires_at
    return MeView(
        owner=caller.owner,
        key_id=caller.key_id,
        scopes=_in_order(caller),
        expires_at=expires_at,
        requires_key=door.requires_key,
        anonymous_scopes=_in_order(anonymous) if anonymous else [],
    )


def show_quotas(
    database: Database,
    caller: Caller,
    owner: str | None,
    *,
    defaults: Limits,
    counted: Callable[[str], Mapping[Quota, int]],
) -> OwnerQuotas:
    """What the caller may have and has; or another owner, whose keys may have limits of their own.

    `counted` says what this process counts of an owner, and no row tells.
    Raises `PermissionDenied` for another owner without the scope operate.
    """
    if owner not in (None, caller.owner):
        caller.require(Scope.OPERATE, "The quotas of other owners need a key with the scope operate.")
    whose = caller.owner if owner is None else owner
    if whose is None:
        return OwnerQuotas(owner=None, quotas=[])
    limits = limits_of(caller, defaults) if whose == caller.owner else defaults
    with database.read() as session:
        return read_quotas(session, whose, limits, database.now(session), counted=counted(whose))


def list_visible_keys(database: Database, caller: Caller, query: KeyListQuery) -> list[KeyView]:
    """A page of the owner's keys, with the scope admin of everybody's, in the order in which they were made.

    Raises `Unauthenticated` without a key, `PermissionDenied`, and `InvalidRequest` for an unknown `after`.
    """
    _require_keys(caller)
    if query.owner not in (None, caller.owner):
        caller.require(Scope.ADMIN, "The keys of other owners need a key with the scope admin.")
    visible = and_(_is_visible(caller), true() if query.owner is None else ApiKeyRow.owner == query.owner)
    page = select(ApiKeyRow).where(visible).order_by(ApiKeyRow.created_at, ApiKeyRow.id).limit(query.limit)
    with database.read() as session:
        if query.after is not None:
            page = page.where(_comes_after(session, query.after, visible))
        now = database.now(session)
        return [view_key(row, now) for row in session.scalars(page)]


def make_key(database: Database, caller: Caller, wanted: KeyCreation, *, defaults: Limits = NO_LIMITS) -> CreatedKey:
    """Make a key, at a server with these limits by default.

    Raises `Unauthenticated` without a key, `PermissionDenied` for more than the caller's key has.
    """
    _require_keys(caller)
    owner = caller.owner if wanted.owner is None else wanted.owner
    if owner != caller.owner:
        caller.require(Scope.ADMIN, "A key for another owner needs a key with the scope admin.")
    with database.write() as session:
        now = database.now(session)
        parent = session.get_one(ApiKeyRow, caller.key_id)
        _check_scopes(parent, wanted.scopes)
        quotas = _quotas(parent, wanted.quotas, defaults)
        expires_at = _expiry(parent, wanted.lifetime_s, now)
        row, key = add_key(session, str(owner), wanted.scopes, now, expires_at=expires_at, quotas=quotas, by=caller)
        return CreatedKey(**view_key(row, now).model_dump(), key=key)


def rotate_visible_key(
    database: Database, caller: Caller, key_id: str, rotation: KeyRotation, *, defaults: Limits = NO_LIMITS
) -> CreatedKey:
    """Replace a key by a new one. Raises as `make_key` does, `KeyNotFound`, and `InvalidRequest` for one that ended."""
    _require_keys(caller)
    with database.write() as session:
        now = database.now(session)
        row = session.scalars(select(ApiKeyRow).where(ApiKeyRow.id == key_id, _is_visible(caller))).one_or_none()
        if row is None:
            raise KeyNotFound
        parent = session.get_one(ApiKeyRow, caller.key_id)
        _check_scopes(parent, [Scope(word) for word in row.scopes.split()])
        _check_quotas(parent, parse_quotas(row.quotas), defaults)
        overlap = timedelta(seconds=rotation.overlap_s)
        # Read before the old key, which may be the caller's own, is given its end.
        made, key = replace_key(session, row, now, overlap=overlap, latest=parent.expires_at, by=caller)
        return CreatedKey(**view_key(made, now).model_dump(), key=key)


def revoke_visible_key(database: Database, caller: Caller, key_id: str) -> None:
    """Revoke a key for good; again: nothing. Raises `Unauthenticated`, `PermissionDenied`, `KeyNotFound`."""
    _require_keys(caller)
    with database.write() as session:
        row = session.scalars(select(ApiKeyRow).where(ApiKeyRow.id == key_id, _is_visible(caller))).one_or_none()
        if row is None:
            raise KeyNotFound
        end_key(session, row, database.now(session), by=caller)


def _require_keys(caller: Caller) -> None:
    if caller.key_id is None:
        raise Unauthenticated("keys are managed with a key: X-API-Key: <key>, or Authorization: Bearer <key>")
    caller.require(Scope.KEYS, _MISSING)


def _is_visible(caller: Caller) -> ColumnElement[bool]:
    return true() if caller.may(Scope.ADMIN) else ApiKeyRow.owner == caller.owner


def _comes_after(session: Session, key_id: str, visible: ColumnElement[bool]) -> ColumnElement[bool]:
    last = session.scalars(select(ApiKeyRow).where(visible, ApiKeyRow.id == key_id)).one_or_none()
    if last is None:
        raise InvalidRequest("after: none of these keys has this id")
    later = ApiKeyRow.created_at > last.created_at
    return or_(later, and_(ApiKeyRow.created_at == last.created_at, ApiKeyRow.id > last.id))


def _check_scopes(parent: ApiKeyRow, wanted: list[Scope]) -> None:
    # Not those of the caller: a door may lend every caller the scope models, which no key may carry off.
    own = Caller(parent.owner, frozenset(parent.scopes.split()))
    if Scope.CONSUME in wanted:
        raise PermissionDenied("A key with the scope consume is made on the server: inference-server keys create")
    if missing := [str(scope) for scope in Scope if scope in wanted and not own.may(scope)]:
        raise PermissionDenied(
            f"A key makes none that may do more than itself: it lacks the scope {', '.join(missing)}."
        )


def _quotas(parent: ApiKeyRow, wanted: KeyQuotas, defaults: Limits) -> KeyQuotas:
    """The limits of a new key's own."""
    if Scope.ADMIN in parent.scopes.split():
        return wanted
    quotas = {**parse_quotas(parent.quotas), **wanted}
    _check_quotas(parent, quotas, defaults)
    return quotas


def _check_quotas(parent: ApiKeyRow, wanted: KeyQuotas, defaults: Limits) -> None:
    if Scope.ADMIN in parent.scopes.split():
        return
    own: Limits = {**defaults, **parse_quotas(parent.quotas)}
    if more := exceeding({**defaults, **wanted}, own):
        says = ", ".join(f"{quota} {own[quota]}" for quota in more)
        raise PermissionDenied(f"A key makes none that may have more than itself: its own quotas are {says}.")


def _expiry(parent: ApiKeyRow, lifetime_s: int | None, now: datetime) -> datetime | None:
    if lifetime_s is None:
        return parent.expires_at
    expires_at = now + timedelta(seconds=lifetime_s)
    if parent.expires_at is not None and expires_at > parent.expires_at:
        raise PermissionDenied(
            f"A key makes none that outlives it: it expires at {parent.expires_at.isoformat(timespec='seconds')}."
        )
    return expires_at


def _in_order(caller: Caller) -> list[Scope]:
    return [scope for scope in Scope if scope in caller.scopes]
