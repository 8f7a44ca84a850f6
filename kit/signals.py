"""How a service learns that it should stop: SIGTERM and SIGINT set one event."""

import signal
import threading
from queue import SimpleQueue

from kit.threads import SupervisedThread


class StopEvent(threading.Event):
    """Set once the process is to stop."""

    by_hand = False
    """Whether SIGINT set it, as Ctrl-C does: nobody starts the process again by itself."""


def stop_event() -> StopEvent:
    """An event that SIGTERM or SIGINT sets. Call it from the main thread; a second signal ends the process at once."""
    event = StopEvent()
    # The handler runs in the main thread, which may hold the event's own lock just then, as it begins or ends to wait:
    # setting the event there would wait for that lock for ever. This queue may be put to in any moment.
    received: SimpleQueue[int] = SimpleQueue()
    is_told = False

    def handle(number: int, _frame: object) -> None:
        nonlocal is_told
        if is_told:
            raise SystemExit(128 + number)
        is_told = True
        received.put(number)

    def tell() -> None:
        event.by_hand = received.get() == signal.SIGINT
        event.set()

    SupervisedThread("signals", tell).start()
    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    return event
