"""Keeps answers for reuse, within bounds of number and size."""

from collections import OrderedDict
from collections.abc import Hashable


class Cache:
    """Keeps the most recently used entries. It belongs to one event loop."""

    def __init__(self, most_entries: int, most_bytes: int) -> None:
        self._entries: OrderedDict[Hashable, bytes] = OrderedDict()
        self._most_entries = most_entries
        self._most_bytes = most_bytes
        self._bytes = 0

    def get(self, key: Hashable) -> bytes | None:
        """The value under `key`; None if it is not, or no longer, there."""
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def put(self, key: Hashable, value: bytes) -> None:
        """Keep `value`, unless it alone would fill more than a quarter of the cache."""
        if len(value) > self._most_bytes // 4:
            return
        self._bytes += len(value) - len(self._entries.pop(key, b""))
        self._entries[key] = value
        while len(self._entries) > self._most_entries or self._bytes > self._most_bytes:
            self._bytes -= len(self._entries.popitem(last=False)[1])
