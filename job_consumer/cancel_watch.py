"""Hears of a cancel as it is asked for: a thread whose request the private API holds until then."""

import threading
from collections.abc import Callable
from typing import Self

from contract.errors import InferenceError, RouteNotFound, StaleFence, TaskNotFound
from job_consumer.context import ConsumerContext
from kit.threads import SupervisedThread

_WAIT_S = 30.0
"""How long the private API holds one request."""
_PAUSE_S = 0.5
"""Between two requests: a server that holds none must not be asked without end."""
_FIRST_S = 0.2
"""Before the first one: most of what ends sooner needs none, and a cancel waits no longer than a person notices."""
_RETRY_S = 5.0


class CancelWatch:
    """Calls `on_cancel` at most once, from its thread, while the block is open.

    It adds speed and no certainty: the heartbeat hears of a cancel as well, and it alone judges whether the task is
    still ours.
    """

    def __init__(self, context: ConsumerContext, uid: str, fence: int, on_cancel: Callable[[], None]) -> None:
        self._api = context.api
        self._uid = uid
        self._fence = fence
        self._on_cancel = on_cancel
        self._stopped = threading.Event()
        self._thread = SupervisedThread("cancel-watch", self._run, pause_s=_RETRY_S, stopped=self._stopped)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        # Not joined: the private API ends the request when the attempt ends, and nothing waits for it before that.
        self._stopped.set()

    def _run(self) -> None:
        self._stopped.wait(_FIRST_S)
        while not self._stopped.is_set():
            pause = _PAUSE_S
            try:
                if self._api.wait_for_cancel(self._uid, self._fence, _WAIT_S):
                    self._on_cancel()
                    return
            except (StaleFence, TaskNotFound, RouteNotFound):
                return
            except InferenceError:
                # The heartbeat meets the same, and logs it.
                pause = _RETRY_S
            self._stopped.wait(pause)
