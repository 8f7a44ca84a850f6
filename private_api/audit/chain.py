"""The chain of the audit trail: each link holds a digest of its event and of the link before it.

Whoever changes, removes or inserts an event breaks every digest from there on. To remove the newest ones unseen, the
links have to go with them, and then a digest that was noted elsewhere is no longer in the chain.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel
from sqlalchemy import func, select

from private_api.audit_tables import AuditEventRow, AuditLinkRow
from private_api.database import Database

START = "0" * 64
"""What the first link holds of the one before it."""
_PAGE = 500
_LAST = select(AuditLinkRow).order_by(AuditLinkRow.position.desc()).limit(1)


class Entry(BaseModel):
    """An event and its link, as a line of an export."""

    position: int
    id: int
    at: datetime
    owner: str | None
    key_id: str | None
    address: str | None
    request_id: str | None
    action: str
    object: str
    detail: str | None
    previous: str
    """The hash of the entry before it."""
    hash: str
    """The SHA-256 of `previous`, a line feed, and the other fields but `position` as JSON: see `digest`."""


class BrokenChain(Exception):
    """The trail is not what was recorded. The text says where, and what is wrong."""


def newest_event(database: Database) -> int:
    """The largest id of all committed events, 0 without any."""
    with database.read() as session:
        return session.scalar(select(func.max(AuditEventRow.id))) or 0


def last_link(database: Database) -> AuditLinkRow | None:
    """The newest link of the chain."""
    with database.read() as session:
        return session.scalars(_LAST).one_or_none()


def link_events(database: Database, *, until: int) -> int:
    """Link the events up to this id, below which none can appear any more. Returns how many were linked."""
    linked = 0
    while count := _link_page(database, until):
        linked += count
    return linked


def read_entries(database: Database, *, after: int = 0) -> Iterator[Entry]:
    """The linked events above this position, in the order of the chain, page by page. Raises `ServiceUnavailable`."""
    previous = _hash_at(database, after)
    statement = select(AuditEventRow, AuditLinkRow).join(AuditLinkRow, AuditLinkRow.event_id == AuditEventRow.id)
    while True:
        page = statement.where(AuditLinkRow.position > after).order_by(AuditLinkRow.position).limit(_PAGE)
        with database.read() as session:
            rows = session.execute(page).all()
        for event, link in rows:
            yield _entry(event, link, previous)
            previous, after = link.hash, link.position
        if len(rows) < _PAGE:
            return


def check_entries(entries: Iterable[Entry], *, from_start: bool) -> Iterator[Entry]:
    """The same entries, each checked before it is passed on. Raises `BrokenChain`.

    Unless they begin `from_start`, the first one's word is taken for what is before it.
    """
    before = (0, START) if from_start else None
    for entry in entries:
        position, previous = before or (entry.position - 1, entry.previous)
        if entry.position != position + 1:
            raise BrokenChain(f"before entry {entry.position} should be {entry.position - 1}, but {position} is")
        if entry.previous != previous:
            raise BrokenChain(f"entry {entry.position} does not follow the one before it")
        if digest(previous, entry) != entry.hash:
            raise BrokenChain(f"entry {entry.position} ({entry.action} {entry.object}) was changed after it was linked")
        yield entry
        before = entry.position, entry.hash


def check_tail(database: Database, last: Entry | None, *, linked: int) -> int:
    """How many events wait for their link, after the last entry that was read. Raises `BrokenChain`.

    `linked` is the position of the last link as of before that, since a running server goes on.
    """
    waiting = select(func.count(), func.min(AuditEventRow.id)).outerjoin(AuditLinkRow)
    with database.read() as session:
        count, first = session.execute(waiting.where(AuditLinkRow.position.is_(None))).one()
    position, newest = (last.position, last.id) if last else (0, 0)
    if count and first < newest:
        raise BrokenChain(f"the event {first} was inserted among events that were linked without it")
    if linked > position:
        raise BrokenChain(f"entry {linked} is linked, but its event is missing")
    return int(count)


def digest(previous: str, event: "Entry | AuditEventRow") -> str:
    """The hash of an event after this one, in lower-case hexadecimal."""
    return hashlib.sha256(f"{previous}\n{_canonical(event)}".encode()).hexdigest()


def _canonical(event: "Entry | AuditEventRow") -> str:
    """The event as JSON: fields in the order of their names, no spaces, the moment in UTC with its microseconds."""
    fields: dict[str, Any] = {name: getattr(event, name) for name in _FIELDS}
    fields["at"] = event.at.astimezone(UTC).isoformat(timespec="microseconds")
    return json.dumps(fields, sort_keys=True, separators=(",", ":"))


_FIELDS = ("id", "at", "owner", "key_id", "address", "request_id", "action", "object", "detail")


def _entry(event: AuditEventRow, link: AuditLinkRow, previous: str) -> Entry:
    fields = {name: getattr(event, name) for name in _FIELDS}
    return Entry(position=link.position, previous=previous, hash=link.hash, **fields)


def _hash_at(database: Database, position: int) -> str:
    with database.read() as session:
        link = session.get(AuditLinkRow, position)
        return START if link is None else link.hash


def _link_page(database: Database, until: int) -> int:
    with database.write() as session:
        database.serialize(session, "audit chain")
        last = session.scalars(_LAST).one_or_none()
        position, after, previous = (last.position, last.event_id, last.hash) if last else (0, 0, START)
        statement = select(AuditEventRow).where(AuditEventRow.id > after, AuditEventRow.id <= until)
        events = session.scalars(statement.order_by(AuditEventRow.id).limit(_PAGE)).all()
        for event in events:
            position, previous = position + 1, digest(previous, event)
            session.add(AuditLinkRow(position=position, event_id=event.id, hash=previous))
        return len(events)
