"""The feed: what streams of events read instead of the database, and who has a seat at it."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock

from contract.access import Caller
from contract.errors import TooManyStreams
from private_api.database import Database
from private_api.feed.changes import WINDOW, Change, newest_id, read_changes
from private_api.feed.standing import Facts, look_around
from private_api.settling import Settling
from private_api.tables import EventRow

INTERVAL_S = 1.0
"""How late an event of another process may be."""
MAX_STREAMS = 400
"""Of one process."""
MAX_STREAMS_PER_OWNER = 20
"""Of one process. A page has one stream, a person a few pages."""
MAX_STREAMS_WITHOUT_KEY = 100
"""Of one process, for all callers without a key together."""
_KEPT = 2 * WINDOW
"""So many of the newest changes are kept in memory, once for all streams."""

Page = tuple[Sequence[Change], int]


@dataclass(frozen=True)
class Moment:
    """What one look found. It is replaced as a whole, so that streams read it without a lock."""

    look: int
    settled: int
    """Every change up to this id is known."""
    kept: Sequence[Change] = ()
    """The newest of them: all above `kept_after`."""
    kept_after: int = 0
    facts: Facts = field(default_factory=dict)

    def page(self, after: int) -> Page | None:
        """Changes above `after`, and the id up to which they are complete; None if they are no longer kept."""
        if after < self.kept_after:
            return None
        start = bisect_right(self.kept, after, key=lambda change: change.id)
        page = self.kept[start : start + WINDOW]
        return page, page[-1].id if len(page) == WINDOW else self.settled


class Feed:
    """Looks at the database once a second while anybody has a seat. Thread-safe; a loop calls `step`."""

    def __init__(self, database: Database, *, on_look: Callable[[], None]) -> None:
        """`on_look` is called after each look that found something new."""
        self._database = database
        self._on_look = on_look
        self._lock = Lock()
        self._seats: Counter[str | None] = Counter()
        self._settling = _settling()
        self.moment: Moment | None = None
        """None until the first look since somebody took a seat."""

    @contextmanager
    def seat(self, caller: Caller) -> Iterator[None]:
        """A place for one stream. Raises `TooManyStreams`."""
        self._sit_down(caller.owner)
        try:
            yield
        finally:
            with self._lock:
                self._seats[caller.owner] -= 1
                # Counters keep zeros.
                self._seats += Counter()

    def step(self) -> None:
        """Look once, if anybody listens."""
        with self._lock:
            if not self._seats:
                self.moment, self._settling = None, _settling()
                return
        before, settled = self.moment, self._settling.look(self._database)
        if settled is None:
            return
        look = 1 if before is None else before.look + 1
        facts = look_around(self._database, before.facts if before else {}, look)
        if before is None:
            self.moment = Moment(look, settled, kept_after=settled, facts=facts)
        else:
            self.moment = self._continue(before, settled, facts, look)
        if before is None or settled != before.settled or any(fact.changed == look for fact in facts.values()):
            self._on_look()

    def read_stored(self, after: int, until: int) -> Page:
        """As `Moment.page`, from the database."""
        reached = min(until, after + WINDOW)
        with self._database.read() as session:
            return read_changes(session, after=after, until=reached), reached

    def place(self, last_event_id: int | None, moment: Moment) -> int:
        """The id after which a stream begins: now, or where an earlier one ended. Uses the database."""
        if last_event_id is None:
            return moment.settled
        # Another process may be ahead of this one; an id that nobody ever gave is of another database.
        return last_event_id if last_event_id <= newest_id(self._database) else moment.settled

    def _continue(self, before: Moment, settled: int, facts: Facts, look: int) -> Moment:
        kept, kept_after = list(before.kept), before.kept_after
        # After a burst only the newest changes are kept; streams read the others from the database.
        first = max(before.settled, settled - _KEPT)
        if first > before.settled:
            kept, kept_after = [], first
        with self._database.read() as session:
            kept += read_changes(session, after=first, until=settled)
        if len(kept) > _KEPT:
            kept_after, kept = kept[-_KEPT - 1].id, kept[-_KEPT:]
        return Moment(look, settled, kept, kept_after, facts)

    def _sit_down(self, owner: str | None) -> None:
        limit = MAX_STREAMS_WITHOUT_KEY if owner is None else MAX_STREAMS_PER_OWNER
        with self._lock:
            if self._seats[owner] >= limit:
                who = "callers without a key have" if owner is None else "this key's owner has"
                raise TooManyStreams(f"{who} {limit} streams of events open, the most there may be; close one")
            if self._seats.total() >= MAX_STREAMS:
                raise TooManyStreams(f"{MAX_STREAMS} streams of events are open, the most there may be; try later")
            self._seats[owner] += 1


def _settling() -> Settling:
    return Settling(EventRow.__tablename__, newest_id)
