"""Asks a replica's server reflection: which services it serves, and which messages they take."""

import asyncio

import grpc
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from grpc_gateway.replicas import Replica
from grpc_gateway.statuses import Metadata, StatusError, status_error_of_call

REFLECTION_PATHS = tuple(
    f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo" for version in ("v1alpha", "v1")
)
"""Both are the same on the wire; nearly every server has the older one, some the newer one alone."""


class ReplicaReflection:
    """The reflection service of one replica, in the version that it has."""

    def __init__(self, replica: Replica, *, timeout_s: float, metadata: Metadata = ()) -> None:
        """`timeout_s` limits each question."""
        self._replica = replica
        self._timeout_s = timeout_s
        self._metadata = metadata
        self._paths = REFLECTION_PATHS

    async def ask(self, question: ServerReflectionRequest) -> ServerReflectionResponse | None:
        """The answer to `question`; None if the replica serves no reflection.

        Raises `StatusError` if no answer comes, or none that can be read.
        """
        encoded = question.SerializeToString(deterministic=True)
        for path in self._paths:
            try:
                answer = await self._ask(path, encoded)
            except StatusError as error:
                if error.code is not grpc.StatusCode.UNIMPLEMENTED:
                    raise
                continue
            self._paths = (path,)
            try:
                return ServerReflectionResponse.FromString(answer)
            except DecodeError as error:
                raise StatusError(grpc.StatusCode.INTERNAL, "The answer is no ServerReflectionResponse.") from error
        return None

    async def _ask(self, path: str, question: bytes) -> bytes:
        # A single question: on the wire this is the stream that the method takes. Writing to a stream that the replica
        # has already refused would turn its UNIMPLEMENTED into INTERNAL (grpc/grpc#36066).
        method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = self._replica.channel.unary_stream(path)
        try:
            stream = method(question, timeout=self._timeout_s, metadata=self._metadata)
        except grpc.aio.UsageError as error:
            raise StatusError(grpc.StatusCode.UNAVAILABLE, "The replica has left.") from error
        try:
            answer = await stream.read()
        except grpc.aio.AioRpcError as error:
            raise status_error_of_call(error) from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            text = "The replica has left, and its channel took the question with it."
            raise StatusError(grpc.StatusCode.UNAVAILABLE, text) from error
        finally:
            stream.cancel()
        if not isinstance(answer, bytes):
            raise StatusError(grpc.StatusCode.UNAVAILABLE, "The replica ended its stream without an answer.")
        return answer
