"""The runs that this process answers for: whatever else carries its name was left by an attempt or process before."""

import threading
from dataclasses import replace

from job_consumer.engines import RunKey


class HeldRuns:
    """A set of runs, safe from any thread. A run counts as held by whichever name it has."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: set[RunKey] = set()

    def add(self, key: RunKey) -> None:
        """From here on nobody else removes the run or its files. Call it before they are made."""
        with self._lock:
            self._keys.add(nameless(key))

    def drop(self, key: RunKey) -> None:
        """The run is nobody's any more. Does nothing for one that is not held."""
        with self._lock:
            self._keys.discard(nameless(key))

    def __contains__(self, key: RunKey) -> bool:
        with self._lock:
            return nameless(key) in self._keys


def nameless(key: RunKey) -> RunKey:
    """The key without its server, as the consumer's folders and runs of earlier releases are named."""
    return replace(key, server="")
