"""Requests on their way to the kernel, which takes those that wait as one batch: one thread, one batch at a time."""

import asyncio
import logging
import uuid
from collections.abc import Callable, Sequence
from itertools import count
from queue import Empty, SimpleQueue

from redhare_runtime.model import Model

logger = logging.getLogger(__name__)

_numbers = count(1)


class KernelFailed(Exception):
    """The kernel raised while it handled this request. The text names the exception."""


class Request:
    """One request; made in the event loop's thread, answered from the kernel's."""

    def __init__(self, data: bytes, session: str) -> None:
        self.id = str(next(_numbers))
        self.uuid = str(uuid.uuid4())
        self.session = session
        """The stream or the task that it is part of."""
        self.data = data
        self.gone = False
        """Whether its client has stopped waiting for the answer."""
        self._loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[bytes] = self._loop.create_future()

    def give(self, answer: bytes | KernelFailed) -> None:
        """Settle the request; from any thread, once."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._settle, answer)

    def _settle(self, answer: bytes | KernelFailed) -> None:
        if self.answer.done():
            return
        if isinstance(answer, KernelFailed):
            self.answer.set_exception(answer)
        else:
            self.answer.set_result(answer)


class TaskContext:
    """One request as the kernel sees it."""

    def __init__(
        self, model: Model, batch: Sequence[Request], index: int = 0, prev: "TaskContext | None" = None
    ) -> None:
        self._model = model
        self._batch = batch
        self._index = index
        self._prev = prev
        self._next: TaskContext | None = None
        self._answered = False

    def get_id(self) -> str:
        """A name for this request, unique in this process."""
        return self._request.id

    def get_uuid(self) -> str:
        """A name for this request that no other has, here or elsewhere."""
        return self._request.uuid

    def get_session_id(self) -> str:
        """The name of the stream or the task that the request came in."""
        return self._request.session

    def get_job_id(self) -> str:
        """The same: a session is one job here."""
        return self.get_session_id()

    def get_model_name(self) -> str:
        """The model's name."""
        return self._model.name

    def get_version(self) -> str:
        """The model's version."""
        return self._model.version

    def report_ready(self, data: object = None) -> bool:
        """Nothing waits for it here: an answer is sent with `set_output_data`."""
        return True

    def get_input_data(self) -> str | bytes:
        """What the client sent: text, or bytes if it is not UTF-8."""
        try:
            return self._request.data.decode()
        except UnicodeDecodeError:
            return self._request.data

    def get_input_data_extend(self) -> str | bytes:
        """The same as `get_input_data`."""
        return self.get_input_data()

    def set_output_data(self, data: str | bytes) -> bool:
        """Answer the client. The first answer counts; returns whether this one did."""
        encoded = data.encode() if isinstance(data, str) else bytes(data)
        if self._answered:
            logger.error("request %s: answered twice; only the first answer was sent", self._request.id)
            return False
        self._answered = True
        self._request.give(encoded)
        return True

    def set_output_data_extend(self, data: str | bytes) -> bool:
        """The same as `set_output_data`."""
        return self.set_output_data(data)

    def next(self) -> "TaskContext | None":
        """The request that waits behind this one, or None; each call returns the same one."""
        if self._next is None and self._index + 1 < len(self._batch):
            self._next = TaskContext(self._model, self._batch, self._index + 1, self)
        return self._next

    def prev(self) -> "TaskContext | None":
        """The request whose `next()` led here, or None."""
        return self._prev

    def settle(self, error: Exception | None) -> int:
        """Once the kernel has returned: answer what it left open. Returns how many requests it took."""
        reached, context = 0, self
        while True:
            reached += 1
            if not context._answered:
                context._give_up(error)
            if context._next is None:
                return reached
            context = context._next

    def _give_up(self, error: Exception | None) -> None:
        if error is not None:
            self._request.give(KernelFailed(f"{type(error).__name__}: {error}"))
        else:
            logger.error("request %s: the kernel set no output; the answer is empty", self._request.id)
            self._request.give(b"")

    @property
    def _request(self) -> Request:
        return self._batch[self._index]


class Inbox:
    """Requests in order of arrival. `put` and `close` may be called from any thread and from a signal's handler."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Request | None] = SimpleQueue()

    def put(self, request: Request) -> None:
        """Add one at the end."""
        self._queue.put(request)

    def close(self) -> None:
        """Let `work` return once it has handled what came before."""
        self._queue.put(None)

    def work(self, invoke: Callable[[TaskContext], None], model: Model) -> None:
        """Hand the kernel batch after batch, until `close`."""
        while True:
            batch, closed = self._take(model.max_batch)
            while batch:
                batch = batch[_invoke(invoke, model, batch) :]
            if closed:
                return

    def _take(self, max_batch: int) -> tuple[list[Request], bool]:
        """Wait for a request and take all that wait with it. The second value says whether the inbox was closed."""
        batch: list[Request] = []
        request = self._queue.get()
        while request is not None:
            if not request.gone:
                batch.append(request)
            if len(batch) == max_batch:
                return batch, False
            try:
                request = self._queue.get_nowait()
            except Empty:
                return batch, False
        return batch, True


def _invoke(invoke: Callable[[TaskContext], None], model: Model, batch: Sequence[Request]) -> int:
    """Call the kernel. Returns how many of the batch it took: one, unless it asks for `next()`."""
    first, failed = TaskContext(model, batch), None
    try:
        invoke(first)
    # The kernel is foreign code: what it raises concerns the requests it took, not later ones.
    except Exception as error:
        logger.exception("the kernel failed")
        failed = error
    return first.settle(failed)
