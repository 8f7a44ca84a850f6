"""Which methods of users' services are unary: asked of each replica's reflection, once.

Whether a call streams is not on the wire. A stream carries calls of every kind; passing a unary one on as such is
cheaper, and is done only where every replica that may get it says that it is one.
"""

import asyncio
import logging

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import DecodeError

from contract.wire import MalformedMessage, bytes_field, fields, text_field
from grpc_gateway.replicas import Replica

logger = logging.getLogger(__name__)

# The older version is served by nearly all, the newer one by some. Requests and replies are the same.
_METHODS = (
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
)
_FILE_CONTAINING_SYMBOL, _LIST_SERVICES = 4, 7
_FILE_RESPONSE, _LIST_RESPONSE = 4, 6
_TIMEOUT_S = 5.0
_MOST_SERVICES = 256
_OWN = "grpc."
"""Services of grpc itself, which the gateway answers."""

Kinds = dict[str, bool]
"""Whether a method, by its full path, is unary."""


class KnownKinds:
    """What the replicas of one deployment say. It belongs to one event loop."""

    def __init__(self) -> None:
        self._replicas: list[Replica] = []
        self._said: dict[str, Kinds] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._agreed: Kinds = {}
        self._is_wanted = False

    def is_unary(self, path: str) -> bool:
        """Whether every replica says so. The first question is why they are asked; until then nothing is known."""
        if not self._is_wanted:
            self._is_wanted = True
            self._ask_missing()
        return self._agreed.get(path, False)

    def is_stream(self, path: str) -> bool:
        """Whether every replica says that it is none."""
        return not self._agreed.get(path, True)

    def follow(self, replicas: list[Replica]) -> None:
        """These are the replicas now: new ones are asked, and what only others have said is forgotten."""
        self._replicas = replicas
        uids = {replica.uid for replica in replicas}
        self._said = {uid: kinds for uid, kinds in self._said.items() if uid in uids}
        self._agree()
        if self._is_wanted:
            self._ask_missing()

    def _ask_missing(self) -> None:
        for replica in self._replicas:
            if replica.uid not in self._said and replica.uid not in self._asking:
                self._asking[replica.uid] = asyncio.create_task(self._ask(replica))

    async def _ask(self, replica: Replica) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                self._said[replica.uid] = await _reflect(replica)
        except (grpc.aio.AioRpcError, TimeoutError, MalformedMessage, DecodeError) as error:
            # Nothing is lost but speed; it is asked again when the routing table changes.
            logger.info("replica=%s says nothing of its methods: %s", replica.uid[:12], error or type(error).__name__)
        finally:
            del self._asking[replica.uid]
        self._agree()

    def _agree(self) -> None:
        everyone = [self._said.get(replica.uid) for replica in self._replicas]
        first = everyone[0] if everyone else None
        if first is None:
            self._agreed = {}
            return
        self._agreed = {
            path: is_unary
            for path, is_unary in first.items()
            if all(kinds is not None and kinds.get(path) is is_unary for kinds in everyone)
        }


async def _reflect(replica: Replica) -> Kinds:
    for method in _METHODS:
        try:
            return await _converse(replica, method)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise
    return {}


async def _converse(replica: Replica, method: str) -> Kinds:
    invoke: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = replica.channel.stream_stream(method)
    stream = invoke(timeout=_TIMEOUT_S)
    try:
        await stream.write(bytes_field(_LIST_SERVICES, b"*"))
        kinds: Kinds = {}
        for name in _services(await stream.read())[:_MOST_SERVICES]:
            await stream.write(text_field(_FILE_CONTAINING_SYMBOL, name))
            kinds |= _kinds(await stream.read(), name)
        return kinds
    finally:
        stream.cancel()


def _nested(message: object, *path: int) -> list[bytes]:
    """Every nested message that `path` leads to."""
    found = [message] if isinstance(message, bytes) else []
    for wanted in path:
        found = [
            value for outer in found for number, value in fields(outer) if number == wanted and isinstance(value, bytes)
        ]
    return found


def _services(reply: object) -> list[str]:
    names = [name.decode() for name in _nested(reply, _LIST_RESPONSE, 1, 1)]
    return [name for name in names if not name.startswith(_OWN)]


def _kinds(reply: object, service: str) -> Kinds:
    kinds: Kinds = {}
    for encoded in _nested(reply, _FILE_RESPONSE, 1):
        file = FileDescriptorProto.FromString(encoded)
        for described in file.service:
            name = f"{file.package}.{described.name}" if file.package else described.name
            if name == service:
                for method in described.method:
                    kinds[f"/{name}/{method.name}"] = not (method.client_streaming or method.server_streaming)
    return kinds
