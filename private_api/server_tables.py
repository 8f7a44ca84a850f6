"""The tables of what a server knows of itself, as rows: its id, its loops, and what happened to its clock."""

from datetime import datetime

from sqlalchemy import BigInteger, Float, String
from sqlalchemy.orm import Mapped, mapped_column

from private_api.columns import Base, Id, Instant


class ServerRow(Base):
    """The server itself: one row, which the migration makes."""

    __tablename__ = "server"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    """Tells its containers from those of other servers on the same Engine. It never changes."""
    running_limit: Mapped[int | None] = mapped_column(BigInteger)
    """How many tasks of each owner may run at once, as the private API that started last was told. NULL: any number."""


class ClockJumpRow(Base):
    """A jump of the database's clock. Of what was written before it, all that waits was moved along with it."""

    __tablename__ = "clock_jumps"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    until: Mapped[datetime] = mapped_column(Instant)
    """What was written before the jump has no later time than this one."""
    since: Mapped[datetime] = mapped_column(Instant)
    """What was written after the jump has no earlier time than this one."""
    by_s: Mapped[float] = mapped_column(Float)
    """How many seconds the clock went forward; back, if negative."""


class HeartbeatRow(Base):
    """When a loop of this service last ran, by which the service notices that it was away."""

    __tablename__ = "loop_heartbeats"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    at: Mapped[datetime] = mapped_column(Instant)
