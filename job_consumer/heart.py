"""Keeps the lease of one attempt: a thread that beats, and what its replies said."""

import logging
import threading
import time
from typing import Self

from contract.errors import InferenceError, StaleFence, TaskNotFound
from contract.logging import log_task
from contract.private_client import REFUSALS
from contract.schemas import Assignment, Heartbeat
from contract.statuses import Phase
from job_consumer.host import Host

logger = logging.getLogger(__name__)

BEATS_PER_LEASE = 6


class Heart:
    """Beats from entering the block until leaving it. Flags only ever go from False to True.

    A private API that cannot be reached changes nothing: only its word ends an attempt.
    """

    def __init__(self, host: Host, assignment: Assignment, phase: Phase) -> None:
        self._host = host
        self._assignment = assignment
        self._phase = phase
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._log = log_task(logger, assignment.uid)
        self._thread = threading.Thread(target=self._run, name="heart", daemon=True)
        self.is_lost = False
        """The task is no longer ours: stop and drop everything."""
        self.is_cancelled = False
        """The owner wants the task to end."""
        self.deadline: float | None = None
        """When the current phase must be over, by `time.monotonic`; None until a beat said it."""

    def enter(self, phase: Phase, *, at_once: bool = False) -> None:
        """Report another phase with the next beat, or with one right now; does not wait for it."""
        self._phase = phase
        self.deadline = None
        if at_once:
            self._wake.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stopped.set()
        self._wake.set()
        self._thread.join(10)

    def _run(self) -> None:
        # The claim itself counts as the first beat, so a fresh attempt need not begin with one.
        while not self._stopped.is_set() and not self.is_lost:
            self._wake.wait(self._assignment.lease_s / BEATS_PER_LEASE)
            self._wake.clear()
            if not self._stopped.is_set():
                self._beat()

    def _beat(self) -> None:
        phase = self._phase
        self._host.note_alive()
        try:
            beat = Heartbeat(consumer=self._host.consumer, phase=phase)
            reply = self._host.api.beat(self._assignment.uid, self._assignment.fence, beat)
        except (StaleFence, TaskNotFound) as error:
            self._log.warning("the attempt was lost: %s", error)
            self.is_lost = True
        except REFUSALS as error:
            self._host.note_refused(error)
        except InferenceError as error:
            self._log.warning("a heartbeat was not answered, the run goes on: %s", error)
        else:
            self.is_cancelled = self.is_cancelled or reply.cancel
            if phase is self._phase:
                self.deadline = time.monotonic() + reply.seconds_left
