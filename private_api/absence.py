"""How this service notices that it was away: nobody could report to it meanwhile, and nobody must pay for that."""

from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from private_api.leases import AMNESTY_AFTER
from private_api.server_tables import HeartbeatRow

_LOOP = "reaper"
_BACK = "reaper.back"


def note_run(session: Session, now: datetime) -> timedelta | None:
    """Note that the reaper runs. Returns for how long it had not run, if that was longer than `AMNESTY_AFTER`."""
    # Locked: of several reapers, one hears of an absence.
    row = session.get(HeartbeatRow, _LOOP, with_for_update=True)
    if row is None:
        session.add(HeartbeatRow(name=_LOOP, at=now))
        return None
    away = now - row.at
    row.at = max(now, row.at)
    if away <= AMNESTY_AFTER:
        return None
    session.merge(HeartbeatRow(name=_BACK, at=now))
    return away


def is_just_back(session: Session, now: datetime, period: timedelta) -> bool:
    """Whether the service came back within the last `period`, or has yet to notice that it is back."""
    runs, back = session.get(HeartbeatRow, _LOOP), session.get(HeartbeatRow, _BACK)
    if runs is not None and now - runs.at > AMNESTY_AFTER:
        return True
    return back is not None and now - back.at < period
