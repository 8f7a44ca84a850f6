"""Carries a run's log into its task while it runs: one thread reads from the engine, one posts."""

import logging
import threading

from contract.errors import InferenceError, StaleFence, TaskNotFound
from contract.private_client import PrivateClient
from job_consumer.engine_watch import Complaint
from job_consumer.engines import Engine, EngineUnavailable, RunKey, RunVanished
from kit.threads import SupervisedThread

logger = logging.getLogger(__name__)

_FLUSH_S = 0.5
_PIECE_BYTES = 256 * 1024
_BUFFER_BYTES = 4 * _PIECE_BYTES
_RETRY_S = 2.0
_FINISH_S = 30.0
_TAIL_BYTES = 4096


class LogFollower:
    """Follows one run from its first byte; the private API skips what it already has, so a restart repeats nothing."""

    def __init__(self, api: PrivateClient, engine: Engine, key: RunKey) -> None:
        self._api = api
        self._engine = engine
        self._key = key
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._buffer = bytearray()
        self._offset = 0
        self._tail = b""
        self._ended = False
        self._reader = SupervisedThread("log-reader", self._read, pause_s=_RETRY_S, stopped=self._stop)
        self._poster = SupervisedThread("log-poster", self._post, pause_s=_RETRY_S, stopped=self._stop)

    def start(self) -> None:
        """Begin to follow; the run must exist."""
        self._reader.start()
        self._poster.start()

    def finish(self) -> None:
        """The run has ended: wait until its log is posted, at most half a minute."""
        self._poster.join(_FINISH_S)
        self.abandon()

    @property
    def tail(self) -> str:
        """The last 4 KiB of what was read so far."""
        return self._tail.decode(errors="replace")

    def abandon(self) -> None:
        """Stop following at once; what is not posted yet is dropped."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()

    def _read(self) -> None:
        complaint = Complaint()
        while not self._stop.is_set():
            # From the beginning each time, also after an unexpected failure.
            with self._changed:
                self._buffer.clear()
                self._offset = 0
            try:
                for chunk in self._engine.follow_log(self._key, self._stop):
                    self._put(chunk)
                break
            except RunVanished:
                break
            except EngineUnavailable as error:
                if complaint.is_due():
                    logger.warning("task=%s the log broke off and is read again: %s", self._key.uid, error)
                self._stop.wait(_RETRY_S)
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _put(self, chunk: bytes) -> None:
        with self._changed:
            # A model that floods its log waits for the network instead of filling our memory.
            self._changed.wait_for(lambda: len(self._buffer) < _BUFFER_BYTES or self._stop.is_set())
            self._buffer += chunk
            self._tail = (self._tail + chunk[-_TAIL_BYTES:])[-_TAIL_BYTES:]
            self._changed.notify_all()

    def _post(self) -> None:
        while not self._stop.is_set():
            with self._changed:
                self._changed.wait_for(lambda: bool(self._buffer) or self._ended or self._stop.is_set())
                if not self._buffer:
                    return
                # Gathers lines for a moment, unless the log has ended.
                self._changed.wait_for(
                    lambda: len(self._buffer) >= _PIECE_BYTES or self._ended or self._stop.is_set(), _FLUSH_S
                )
                piece, offset = bytes(self._buffer[:_PIECE_BYTES]), self._offset
            try:
                self._api.append_log(self._key.uid, self._key.fence, offset, piece)
            except (StaleFence, TaskNotFound):
                self.abandon()
                return
            except InferenceError as error:
                logger.warning(
                    "task=%s a piece of the log was not accepted and is sent again: %s", self._key.uid, error
                )
                self._stop.wait(_RETRY_S)
                continue
            with self._changed:
                # Unless the reader started over meanwhile.
                if self._offset == offset:
                    del self._buffer[: len(piece)]
                    self._offset += len(piece)
                self._changed.notify_all()
