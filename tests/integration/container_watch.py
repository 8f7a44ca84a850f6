"""Which containers of one consumer run at once, as the Engine tells it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from job_consumer.engines import LABEL
from tests.engine_client import engine_client


@dataclass
class ContainerWatch:
    """Starts and ends in the order of the Engine's events."""

    history: list[tuple[str, str]] = field(default_factory=list)
    """`start` or `die`, and `task` or `replica`."""
    most_at_once: int = 0
    _running: set[str] = field(default_factory=set)

    def note(self, event: dict[str, Any]) -> None:
        """One event of a container. That of a guard is part of its replica's."""
        if f"{LABEL}.guard" in event["Actor"]["Attributes"]:
            return
        kind = "replica" if f"{LABEL}.replica" in event["Actor"]["Attributes"] else "task"
        self.history.append((event["Action"], kind))
        if event["Action"] == "start":
            self._running.add(event["id"])
            self.most_at_once = max(self.most_at_once, len(self._running))
        else:
            self._running.discard(event["id"])

    def count(self, action: str, kind: str) -> int:
        """How often that was seen so far."""
        return self.history.count((action, kind))


@contextmanager
def watch_containers(consumer: str) -> Iterator[ContainerWatch]:
    """Watch while the block is open; the test waits for the events that it wants to have seen."""
    watch = ContainerWatch()
    client = engine_client()
    filters = {"label": f"{LABEL}.consumer={consumer}", "event": ["start", "die"]}
    events = client.events(decode=True, filters=filters)

    def read() -> None:
        for event in events:
            watch.note(event)

    thread = threading.Thread(target=read, name="container-watch")
    thread.start()
    try:
        yield watch
    finally:
        events.close()
        thread.join(60)
        client.close()
