"""How connections to PostgreSQL are opened, and when one is left."""

import select
from typing import Any

from sqlalchemy import make_url
from sqlalchemy.exc import InvalidatePoolError

_POSTGRES_OPTIONS = (
    "-c statement_timeout=5000 -c idle_in_transaction_session_timeout=15000 -c lock_timeout=4000 -c timezone=UTC"
    " -c synchronous_commit=on"
)
_CONNECTING = {
    "connect_timeout": 3,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""How soon a host that vanished is noticed: while it is awaited after 11 s, while it is sent to after 10 s."""


def connect_args(url: str) -> dict[str, Any]:
    """What each connection is opened with. The URL's query overrides ours: PostgreSQL takes the last of its options."""
    query = make_url(url).query
    given = query.get("options", ())
    options = " ".join([_POSTGRES_OPTIONS, *([given] if isinstance(given, str) else given)])
    return {**{name: value for name, value in _CONNECTING.items() if name not in query}, "options": options}


def leave_what_has_ended(connection: Any, _record: Any, _proxy: Any) -> None:
    """A server says nothing unasked: what there is to read is its farewell. To ask each time would be a round trip."""
    # Not select(): with many long polls open, descriptors are larger than it takes.
    poller = select.poll()
    poller.register(connection.fileno(), select.POLLIN)
    if poller.poll(0):
        raise InvalidatePoolError
