"""Reads a table in the order of its ids, and leaves none out.

PostgreSQL hands out ids when rows are inserted and shows rows when their transactions commit: a smaller id may appear
after a larger one. `Settling` says up to which id nothing can appear any more.
"""

from collections.abc import Callable

from private_api.database import Database


class Settling:
    """Finds the settled id of a table: no row with this or a smaller one appears any more. One thread uses it."""

    def __init__(self, table: str, newest: Callable[[Database], int]) -> None:
        """`newest` reads the largest id of all committed rows, 0 without any."""
        self.settled: int | None = None
        self._table = table
        self._newest = newest
        self._pending: tuple[int, frozenset[str]] | None = None

    def look(self, database: Database) -> int | None:
        """The settled id as of now; None if none is known yet. With writers under way it takes a second look."""
        newest = self._newest(database)
        # Asked for after the newest id was read: whoever got a smaller one and is not visible yet is among them.
        with database.read() as session:
            writers = database.open_writers(session, self._table)
        if self._pending is not None and not self._pending[1] & writers:
            self.settled, self._pending = self._pending[0], None
        if self._pending is None and newest != self.settled:
            if writers:
                self._pending = newest, writers
            else:
                self.settled = newest
        return self.settled
