"""Carries a run's log into its task while it runs: two threads read from the engine, one posts.

A line that is written anew, as progress bars are, is in the Engine's log once it ends. So it is followed in what the
run writes, and shown until the log has it.
"""

import logging
import threading

from contract.errors import InferenceError, RouteNotFound, StaleFence, TaskNotFound
from contract.private_client import PrivateClient
from job_consumer.engine_watch import Complaint
from job_consumer.engines import Engine, EngineUnavailable, RunKey, RunVanished
from job_consumer.tasks.frames import LastFrames, MovingLine
from job_consumer.tasks.progress import OnProgress, ProgressFile, ProgressLines
from job_consumer.workspace import Workspace
from kit.threads import SupervisedThread

logger = logging.getLogger(__name__)

_FLUSH_S = 0.5
_PIECE_BYTES = 256 * 1024
_BUFFER_BYTES = 4 * _PIECE_BYTES
_RETRY_S = 2.0
_FINISH_S = 30.0
_LINE_S = 1.0
"""Between two looks at the line that is being written."""
_TAIL_BYTES = 4096


class LogFollower:
    """Follows one run from its first byte; the private API skips what it already has, so a restart repeats nothing."""

    def __init__(
        self, api: PrivateClient, engine: Engine, key: RunKey, workspace: Workspace, on_progress: OnProgress
    ) -> None:
        """`on_progress` is told, from other threads, how far the run says it is."""
        self._api = api
        self._engine = engine
        self._key = key
        self._on_progress = on_progress
        # The log of a run that a release before this one began is stored with every frame, and counted so.
        self._keeps_frames = not workspace.progress_dir.exists()
        self._progress_file = ProgressFile(workspace.progress_dir, on_progress)
        self._stop = threading.Event()
        self._is_read = threading.Event()
        """Nothing is left to follow; also set with `_stop`."""
        self._line = MovingLine()
        self._told_line: bytes | None = b""
        """What the private API shows; None if it cannot show any."""
        self._changed = threading.Condition()
        self._buffer = bytearray()
        self._offset = 0
        self._tail = b""
        self._ended = False
        self._reader = SupervisedThread("log-reader", self._read, pause_s=_RETRY_S, stopped=self._stop)
        self._watcher = SupervisedThread("line-watcher", self._watch_line, pause_s=_RETRY_S, stopped=self._is_read)
        self._poster = SupervisedThread("log-poster", self._post, pause_s=_RETRY_S, stopped=self._stop)

    def start(self) -> None:
        """Begin to follow; the run must exist."""
        self._progress_file.start()
        self._watcher.start()
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
        self._progress_file.stop()
        self._is_read.set()
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
            frames, progress = LastFrames(), ProgressLines()
            try:
                for chunk in self._engine.follow_log(self._key, self._stop):
                    if (said := progress.find(chunk)) is not None:
                        self._on_progress(said)
                    self._put(chunk if self._keeps_frames else frames.take(chunk))
                self._put(frames.finish())
                break
            except RunVanished:
                break
            except EngineUnavailable as error:
                if complaint.is_due():
                    logger.warning("task=%s the log broke off and is read again: %s", self._key.uid, error)
                self._stop.wait(_RETRY_S)
        self._is_read.set()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _watch_line(self) -> None:
        while not self._is_read.is_set():
            self._line = MovingLine()
            try:
                # Never waits for the network: the run might have to wait for it.
                for piece in self._engine.follow_output(self._key, self._is_read):
                    self._line.take(piece)
            except RunVanished:
                return
            except EngineUnavailable as error:
                # The reader meets the same, and warns of it.
                logger.debug("task=%s the line that is being written is not followed: %s", self._key.uid, error)
            # An Engine that was restarted under its containers ended the stream.
            self._is_read.wait(_RETRY_S)

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
                is_new = self._changed.wait_for(
                    lambda: bool(self._buffer) or self._ended or self._stop.is_set(), _LINE_S
                )
                if is_new and not self._buffer:
                    return
            if not is_new:
                self._post_line()
                continue
            with self._changed:
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
            if self._told_line is not None:
                # A log that goes on takes the place of the line.
                self._told_line = b""
                self._post_line()

    def _post_line(self) -> None:
        """Show the line as it is now, unless it is shown. A failure costs this frame and no more."""
        line = self._line.shown
        if self._is_read.is_set() or self._told_line in (None, line):
            return
        try:
            self._api.show_log_line(self._key.uid, self._key.fence, line)
            self._told_line = line
        except RouteNotFound:
            # A private API of the release before.
            self._told_line = None
        except InferenceError as error:
            logger.debug("task=%s a line that is being written is not shown: %s", self._key.uid, error)
