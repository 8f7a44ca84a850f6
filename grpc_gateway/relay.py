"""Passes calls on to replicas: the one module in which both sides of a call meet.

Messages are bytes and stay bytes. In either direction each is passed on before the next is read, so a side that does
not read makes the other wait.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import grpc

from grpc_gateway.admission import Admission, CallClass
from grpc_gateway.calls import Call, Target
from grpc_gateway.refusals import host_gone, timed_out
from grpc_gateway.replicas import Replica
from grpc_gateway.statuses import Metadata, StatusError, status_error_of_call

_OVERTAKING = 5
"""Turns of the event loop between the end of the caller's messages and telling the replica of it."""
_NEARLY = 0.98
"""gRPC's timers are a little coarse: a call that lasted this part of its limit was ended by the limit."""


class BackendStream:
    """A stream open on a replica. `Relay.open` makes it and ends it."""

    def __init__(self, stream: Any, replica: Replica, admission: Admission, holder: str) -> None:
        self._stream = stream
        self._holder = holder
        # Not `stream.write`: where a replica ends the stream early, that makes INTERNAL of the status the replica gave
        # (grpc/grpc#36066). Below it is the same call without that.
        self._send: Callable[[bytes], Awaitable[None]] = stream._cython_call.send_serialized_message
        self._admission = admission
        self.replica = replica
        self.trailers: Metadata = ()
        """The replica's trailing metadata, once `read` has returned None."""

    async def initial_metadata(self) -> Metadata:
        """Wait for what the replica sends before its first message. Raises `StatusError` if the replica is gone."""
        with _telling_loss(self.replica):
            return tuple(await self._stream.initial_metadata())

    async def write(self, message: bytes) -> bool:
        """Send one message, waiting while the replica does not read. False once the stream is over: `read` says how."""
        self._admission.hold(len(message), self._holder)
        try:
            await self._stream.wait_for_connection()
            if self._stream.done():
                return False
            await self._send(message)
        except (grpc.aio.AioRpcError, grpc.aio.InternalError):
            return False
        finally:
            self._admission.drop(len(message), self._holder)
        return True

    async def end(self) -> None:
        """Tell the replica that no more messages follow."""
        # If the stream is already over, `read` says how.
        with suppress(grpc.aio.InternalError):
            await self._stream.done_writing()

    async def read(self) -> bytes | None:
        """The replica's next message; None once the stream ended with OK. Raises `StatusError` for any other end."""
        try:
            with _telling_loss(self.replica):
                message = await self._stream.read()
        except grpc.aio.AioRpcError as error:
            raise status_error_of_call(error) from error
        if isinstance(message, bytes):
            return message
        self.trailers = tuple(await self._stream.trailing_metadata())
        return None

    @property
    def is_over(self) -> bool:
        """Whether the replica's status has arrived."""
        return bool(self._stream.done())

    def cancel(self) -> None:
        """End the stream now; the replica sees a cancelled call."""
        self._stream.cancel()


class Relay:
    """Relays calls within the limits of one process. It belongs to one event loop."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    async def unary(self, call: Call, target: Target, request: bytes) -> bytes:
        """The replica's response; its metadata goes out through `call`. Raises `StatusError` for any other status."""
        admission, deployment, holder = self._admission, target.deployment, call.holder
        admission.enter(CallClass.INFER, holder)
        try:
            admission.hold(len(request), holder)
            try:
                replica = await self._acquire(call, target, CallClass.INFER)
                try:
                    return await _send(call, target, replica, request)
                finally:
                    deployment.release(replica, CallClass.INFER)
            finally:
                admission.drop(len(request), holder)
        finally:
            admission.leave(CallClass.INFER, holder)

    async def stream(
        self,
        call: Call,
        target: Target,
        requests: AsyncIterator[bytes] | None = None,
        *,
        call_class: CallClass = CallClass.STREAM,
    ) -> None:
        """Relay a call of any kind until it is over; `requests` stands in for the caller's messages.

        Raises `StatusError` with the replica's status, or what `requests` raises. With `CallClass.INFER` the time limit
        of the deployment holds while the call still looks unary: a single request and no response yet.
        """
        async with self.open(call, target, call_class=call_class) as backend:
            limit_s = target.deployment.call_timeout_s if call_class is CallClass.INFER else None
            upstream = _Upstream(backend, limit_s)
            pump = asyncio.create_task(upstream.pump(call.requests() if requests is None else requests))
            try:
                await self._answer(call, backend, upstream)
            except (StatusError, asyncio.CancelledError):
                if upstream.failure is not None:
                    raise upstream.failure from None
                raise
            finally:
                upstream.stop_clock()
                pump.cancel()

    @asynccontextmanager
    async def open(
        self, call: Call, target: Target, *, call_class: CallClass = CallClass.STREAM
    ) -> AsyncIterator[BackendStream]:
        """A stream to a replica of `target` while the block is open; leaving the block cancels what is under way.

        Waits for a replica. Raises `StatusError` if none comes or a limit is reached.
        """
        self._admission.enter(call_class, call.holder)
        try:
            replica = await self._acquire(call, target, call_class)
            try:
                method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = replica.channel.stream_stream(target.path)
                stream = method(timeout=call.time_remaining(), metadata=call.headers.forward)
                try:
                    yield BackendStream(stream, replica, self._admission, call.holder)
                finally:
                    stream.cancel()
            finally:
                target.deployment.release(replica, call_class)
        finally:
            self._admission.leave(call_class, call.holder)

    async def _acquire(self, call: Call, target: Target, call_class: CallClass) -> Replica:
        """A connected replica. Nothing has been sent anywhere yet, so another one may be tried."""
        headers, deployment = call.headers, target.deployment
        affinity = headers.multiplexed_model_id or headers.session_id or target.affinity
        replica = await deployment.acquire(call_class, affinity, call.time_remaining())
        if replica.is_connected:
            return replica
        tried: list[Replica] = []
        while True:
            try:
                if await replica.connect():
                    return replica
            except BaseException:
                deployment.release(replica, call_class)
                raise
            deployment.release(replica, call_class)
            tried.append(replica)
            replica = await deployment.acquire(call_class, affinity, call.time_remaining(), tried)

    async def _answer(self, call: Call, backend: BackendStream, upstream: "_Upstream") -> None:
        initial = await backend.initial_metadata()
        # A stream that is already over carried nothing but a status: there is nothing to announce.
        if initial or not backend.is_over:
            await call.send_initial_metadata(initial)
        while (message := await backend.read()) is not None:
            upstream.stop_clock()
            self._admission.hold_response(len(message), call.holder)
            try:
                await call.write(message)
            finally:
                self._admission.drop(len(message), call.holder)
        call.trailers += backend.trailers


class _Upstream:
    """Passes the caller's messages on to a replica while its answers come back."""

    def __init__(self, backend: BackendStream, limit_s: float | None) -> None:
        self._backend = backend
        self._limit_s = limit_s
        self._began_at = asyncio.get_running_loop().time()
        self._clock: asyncio.TimerHandle | None = None
        self._has_answer = False
        self.failure: Exception | None = None
        """Why this side cancelled the stream."""

    async def pump(self, requests: AsyncIterator[bytes]) -> None:
        """Pass the messages on one by one until the caller ends its side or the stream is over."""
        count = 0
        try:
            async for message in requests:
                count += 1
                if not await self._backend.write(message):
                    return
            # A cancelled call looks like one whose caller ended its side until grpc cancels this task, a few turns
            # later. The replica must not take it for a proper end.
            for _ in range(_OVERTAKING):
                await asyncio.sleep(0)
            await self._backend.end()
            if count == 1 and self._limit_s is not None and not self._has_answer:
                self._start_clock(self._limit_s)
        except Exception as error:
            self._fail(error)

    def stop_clock(self) -> None:
        """Lift the time limit: an answer came, or the call is over."""
        self._has_answer = True
        if self._clock is not None:
            self._clock.cancel()

    def _start_clock(self, limit_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._clock = loop.call_at(self._began_at + limit_s, self._fail, timed_out(limit_s))

    def _fail(self, failure: Exception) -> None:
        self.failure = failure
        self._backend.cancel()


@contextmanager
def _telling_loss(replica: Replica) -> Iterator[None]:
    """A call that ended because its replica is gone looks like one that its caller cancelled: tell them apart."""
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if not replica.is_gone or (task is not None and task.cancelling()):
            raise
        raise host_gone(replica.address) from None


async def _send(call: Call, target: Target, replica: Replica, request: bytes) -> bytes:
    remaining, limit_s = call.time_remaining(), target.deployment.call_timeout_s
    is_ours = limit_s is not None and (remaining is None or limit_s < remaining)
    invoke: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = replica.channel.unary_unary(target.path)
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    rpc = invoke(request, timeout=limit_s if is_ours else remaining, metadata=call.headers.forward)
    try:
        with _telling_loss(replica):
            response: bytes = await rpc
    except grpc.aio.AioRpcError as error:
        initial = error.initial_metadata()
        if initial:
            await call.send_initial_metadata(tuple(initial))
        is_late = limit_s is not None and loop.time() - began_at >= limit_s * _NEARLY
        if is_ours and limit_s is not None and is_late and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            raise timed_out(limit_s) from error
        raise status_error_of_call(error) from error
    finally:
        rpc.cancel()
    if initial := await rpc.initial_metadata():
        await call.send_initial_metadata(tuple(initial))
    if trailers := await rpc.trailing_metadata():
        call.trailers.extend(trailers)
    return response
