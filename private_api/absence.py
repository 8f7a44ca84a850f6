"""How this service notices that it was away: nobody could say anything to it meanwhile, and must not pay for that."""

from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from private_api.database import Database
from private_api.tables import HeartbeatRow
from private_api.tasks.limits import AMNESTY_AFTER

_LOOP = "reaper"
_BACK = "reaper.back"


def was_away(database: Database) -> bool:
    """Write that the reaper runs; whether it had not for longer than `AMNESTY_AFTER`."""
    with database.write() as session:
        now = database.now(session)
        row = session.get(HeartbeatRow, _LOOP)
        if row is None:
            session.add(HeartbeatRow(name=_LOOP, at=now))
            return False
        away = now - row.at > AMNESTY_AFTER
        row.at = now
        if away:
            session.merge(HeartbeatRow(name=_BACK, at=now))
        return away


def is_just_back(session: Session, now: datetime, period: timedelta) -> bool:
    """Whether the service came back within the last `period`, or has not noticed yet that it is back."""
    runs, back = session.get(HeartbeatRow, _LOOP), session.get(HeartbeatRow, _BACK)
    if runs is not None and now - runs.at > AMNESTY_AFTER:
        return True
    return back is not None and now - back.at < period
