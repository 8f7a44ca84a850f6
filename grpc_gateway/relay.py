"""Calls passed on to replicas: the only place where the two sides of a call meet.

Messages are bytes and stay bytes. Each is passed on before the next one is read, in both directions, so that a side that
does not read makes the other one wait.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from grpc_gateway.calls import Call, Target
from grpc_gateway.lanes import Lane, Lanes
from grpc_gateway.replicas import Replica
from grpc_gateway.statuses import Metadata, Refusal, refusal_of_call


class BackendStream:
    """A stream that is open on a replica. `Relay.open` makes it and ends it."""

    def __init__(self, stream: Any, replica: Replica, lanes: Lanes) -> None:
        self._stream = stream
        self._lanes = lanes
        self.replica = replica
        self.trailers: Metadata = ()
        """The replica's trailing metadata, once `read` has returned None."""

    async def initial_metadata(self) -> Metadata:
        """What the replica sends before its first message; waits for it."""
        return tuple(await self._stream.initial_metadata())

    async def write(self, message: bytes) -> bool:
        """Send one message; waits while the replica does not read. False once the stream is over: `read` says how."""
        self._lanes.hold(len(message))
        try:
            await self._stream.write(message)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return False
        finally:
            self._lanes.drop(len(message))
        return True

    async def end(self) -> None:
        """Say that no more messages come."""
        # Where the stream is over already, `read` says how.
        if not self._stream.done():
            await self._stream.done_writing()

    async def read(self) -> bytes | None:
        """The replica's next message, or None once it ended the stream with OK. Raises `Refusal` for any other end."""
        try:
            message = await self._stream.read()
        except grpc.aio.AioRpcError as error:
            raise refusal_of_call(error) from error
        if isinstance(message, bytes):
            return message
        self.trailers = tuple(await self._stream.trailing_metadata())
        return None

    def cancel(self) -> None:
        """End the stream now. The replica sees a cancelled call."""
        self._stream.cancel()


class Relay:
    """Passes calls on. It belongs to one event loop."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes

    async def unary(self, call: Call, target: Target, request: bytes) -> bytes:
        """The replica's response; its metadata is passed on through `call`. Raises `Refusal` with the replica's status."""
        raise Refusal(grpc.StatusCode.UNIMPLEMENTED, "")

    async def stream(
        self,
        call: Call,
        target: Target,
        requests: AsyncIterator[bytes] | None = None,
        *,
        lane: Lane = Lane.STREAM,
    ) -> None:
        """Relay a call of any kind until it is over; `requests` stands in for the caller's messages.

        Raises `Refusal` with the replica's status, or what `requests` raises.
        """

    @asynccontextmanager
    async def open(self, call: Call, target: Target, *, lane: Lane = Lane.STREAM) -> AsyncIterator[BackendStream]:
        """A stream to a replica of `target`, for as long as the block is open; leaving it cancels what is under way.

        Waits for a replica. Raises `Refusal` where none comes or a limit is reached.
        """
        raise Refusal(grpc.StatusCode.UNIMPLEMENTED, "")
        yield
