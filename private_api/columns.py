"""What columns of all tables are made of: moments, words of enumerations, ids; and the base of all rows."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, DateTime, Dialect, Integer, String, TypeDecorator
from sqlalchemy.orm import DeclarativeBase


class Instant(TypeDecorator[datetime]):
    """A moment in UTC. SQLite stores no zone, so it is removed on the way in and restored on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """The moment in UTC, naive for SQLite."""
        if value is None or dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """The moment in UTC, with its zone."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Word(TypeDecorator[StrEnum]):
    """A member of an enumeration, or of one of two, stored as its text."""

    impl = String
    cache_ok = True

    def __init__(self, length: int, kind: type[StrEnum], other: type[StrEnum] | None = None) -> None:
        super().__init__(length)
        # Under the names of the parameters, from which SQLAlchemy makes the type's cache key.
        self.kind = kind
        self.other = other
        self._members = {str(member): member for each in (kind, other) if each for member in each}

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """The member's text."""
        return None if value is None else str(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> StrEnum | None:
        """The member. Raises `KeyError` for a word that this release does not know."""
        return None if value is None else self._members[value]


# SQLite numbers rows by itself only if the key is declared as INTEGER.
Id = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    """The base of all rows."""
