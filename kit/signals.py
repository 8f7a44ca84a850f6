"""How a service learns that it should stop: SIGTERM and SIGINT set one event."""

import signal
import threading


class StopEvent(threading.Event):
    """Set once the process is to stop."""

    by_hand = False
    """Whether SIGINT set it, as Ctrl-C does: nobody starts the process again by itself."""


def stop_event() -> StopEvent:
    """An event that SIGTERM or SIGINT sets. Call it from the main thread; a second signal ends the process at once."""
    event = StopEvent()

    def handle(number: int, _frame: object) -> None:
        if event.is_set():
            raise SystemExit(128 + number)
        event.by_hand = number == signal.SIGINT
        event.set()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    return event
