"""Where the attempts of a consumer are: while one runs, the next one prepares and the last one delivers."""

import threading
from collections.abc import Callable
from enum import Enum, auto

from job_consumer.engines import RunKey

_CHECK_S = 0.2


class Stage(Enum):
    """What an attempt does at its consumer. One attempt at a time is in each."""

    PREPARING = auto()
    """It fetches what its run needs, or has it and waits for the run before it."""
    RUNNING = auto()
    DELIVERING = auto()
    """Its run has ended; its output is on its way, or waits for the one before it."""


class Stages:
    """The stage of every attempt of one consumer. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._stages: dict[RunKey, Stage] = {}
        self._starting: set[RunKey] = set()
        """Those that wait for the run before them, or were let in and do not run yet."""

    def enter(self, key: RunKey) -> None:
        """Note that an attempt begins. The caller knows that no other one prepares."""
        with self._changed:
            self._stages[key] = Stage.PREPARING
            self._changed.notify_all()

    def move(self, key: RunKey, stage: Stage, check: Callable[[], object]) -> None:
        """Wait until no other attempt is in the stage, then be in it.

        `check` is called meanwhile and raises to end the wait.
        """
        if stage is Stage.RUNNING:
            with self._changed:
                self._starting.add(key)
        while not self._try(key, stage):
            check()
            with self._changed:
                self._changed.wait(_CHECK_S)

    def note_started(self, key: RunKey) -> None:
        """Note that the run of an attempt is going."""
        with self._changed:
            self._starting.discard(key)
            self._changed.notify_all()

    def let_start(self, timeout_s: float) -> None:
        """Wait until no attempt is about to start its run, at most `timeout_s`, in seconds: a GPU waits for it."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_one_starting(), timeout_s)

    def leave(self, key: RunKey) -> None:
        """Note that an attempt is over. Does nothing for one that is unknown."""
        with self._changed:
            self._stages.pop(key, None)
            self._starting.discard(key)
            self._changed.notify_all()

    def has(self, stage: Stage) -> bool:
        """Whether an attempt is in the stage."""
        with self._changed:
            return stage in self._stages.values()

    def delivering(self) -> set[RunKey]:
        """The attempts whose run has ended."""
        with self._changed:
            return {key for key, stage in self._stages.items() if stage is Stage.DELIVERING}

    def wait_while(self, stage: Stage, timeout_s: float) -> None:
        """Wait until no attempt is in the stage, at most `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: stage not in self._stages.values(), timeout_s)

    def _is_one_starting(self) -> bool:
        running = {key for key, at in self._stages.items() if at is Stage.RUNNING}
        # One that waits for a run which has ended, and now waits for a delivery, starts no sooner for being let.
        return bool(self._starting & running if running else self._starting)

    def _try(self, key: RunKey, stage: Stage) -> bool:
        with self._changed:
            if any(at is stage for other, at in self._stages.items() if other != key):
                return False
            self._stages[key] = stage
            self._changed.notify_all()
            return True
