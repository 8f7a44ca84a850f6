"""How a service learns that it should stop: SIGTERM and SIGINT set one event."""

import signal
import threading


def stop_event() -> threading.Event:
    """An event that SIGTERM or SIGINT sets. Call it from the main thread; a second signal ends the process at once."""
    event = threading.Event()

    def handle(number: int, _frame: object) -> None:
        if event.is_set():
            raise SystemExit(128 + number)
        event.set()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    return event
