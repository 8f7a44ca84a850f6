"""Writes down who did what."""

from datetime import datetime

from sqlalchemy import ColumnElement
from sqlalchemy.orm import Session

from contract.access import Caller, Scope
from kit.logging import request_id
from private_api.audit_tables import Action, AuditEventRow
from private_api.database import Database
from private_api.round_trips import add_later

OPERATOR = Caller(None, frozenset({Scope.ADMIN}), address="command")
"""Whoever runs a command on the server, and reaches the database."""


def record(
    session: Session,
    caller: Caller,
    action: Action,
    object_: str,
    at: datetime | ColumnElement[datetime],
    *,
    detail: str | None = None,
) -> None:
    """Add an event to the transaction. `detail` must name no file and no patient."""
    add_later(
        session,
        AuditEventRow(
            at=at,
            owner=caller.owner,
            key_id=caller.key_id,
            address=caller.address,
            request_id=request_id.get(),
            action=action,
            object=object_,
            detail=detail,
        ),
    )


def record_alone(database: Database, caller: Caller, action: Action, object_: str) -> None:
    """The same in a transaction of its own: for what only reads. Raises `ServiceUnavailable`, `StorageFull`."""
    with database.write() as session:
        record(session, caller, action, object_, database.clock())
