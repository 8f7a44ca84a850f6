"""What was read from the database a moment ago: for what many calls ask, and what may be as old."""

import threading
import time
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

AGE_S = 0.5
"""With the time that it takes to read again, less than the second that an answer to a poll may be old."""

_Value = TypeVar("_Value")


class Recent:
    """Keeps what was read for `AGE_S`. Thread-safe."""

    def __init__(self, age_s: float = AGE_S) -> None:
        """With `age_s` 0 everything is read each time."""
        self._age_s = age_s
        self._lock = threading.Lock()
        self._kept: dict[Hashable, tuple[float, Any]] = {}

    def get(self, key: Hashable, read: Callable[[], _Value]) -> _Value:
        """What `read` returned for this key of late, or returns now."""
        now = time.monotonic()
        with self._lock:
            at, value = self._kept.get(key, (float("-inf"), None))
            if now - at < self._age_s:
                kept: _Value = value
                return kept
            if len(self._kept) > _MOST:
                self._kept = {each: entry for each, entry in self._kept.items() if now - entry[0] < self._age_s}
        fresh = read()
        with self._lock:
            self._kept[key] = (now, fresh)
        return fresh


_MOST = 10_000
"""Owners and models come and go: then what is old is dropped."""
AT_ONCE = Recent(0)
"""Reads everything each time."""
