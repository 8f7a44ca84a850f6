"""Which methods of users' services are unary: each replica's reflection is asked, once.

Whether a call streams is not on the wire. A stream carries calls of every type; relaying a unary one as such is
cheaper, and happens only if every replica that may get it says that it is unary.
"""

import asyncio
import logging

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from grpc_gateway.background import Background
from grpc_gateway.replica_reflection import ReplicaReflection
from grpc_gateway.replicas import Replica
from grpc_gateway.statuses import StatusError

logger = logging.getLogger(__name__)

_TIMEOUT_S = 5.0
_MOST_SERVICES = 256
_OWN = "grpc."
"""Services of grpc itself, which the gateway answers."""

UnaryMethods = dict[str, bool]
"""Whether a method, by its full path, is unary."""


class MethodTypes:
    """What the replicas of one deployment say of their methods. It belongs to one event loop."""

    def __init__(self) -> None:
        self._replicas: list[Replica] = []
        self._said: dict[str, UnaryMethods] = {}
        self._asking: set[str] = set()
        self._agreed: UnaryMethods = {}
        self._is_wanted = False
        self._background = Background()

    def is_unary(self, path: str) -> bool:
        """Whether every replica says so. The first question has the replicas asked; until they answer it is False."""
        if not self._is_wanted:
            self._is_wanted = True
            self._ask_missing()
        return self._agreed.get(path, False)

    def is_stream(self, path: str) -> bool:
        """Whether every replica says that the method is not unary."""
        return not self._agreed.get(path, True)

    def follow(self, replicas: list[Replica]) -> None:
        """Take over the current replicas: new ones are asked, and what those that left said is forgotten."""
        self._replicas = replicas
        uids = {replica.uid for replica in replicas}
        self._said = {uid: methods for uid, methods in self._said.items() if uid in uids}
        self._agree()
        if self._is_wanted:
            self._ask_missing()

    def _ask_missing(self) -> None:
        for replica in self._replicas:
            if replica.uid not in self._said and replica.uid not in self._asking:
                self._asking.add(replica.uid)
                self._background.start(self._ask(replica), f"replica={replica.uid[:12]}: asking for its methods")

    async def _ask(self, replica: Replica) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                self._said[replica.uid] = await _read_methods(replica)
        except (StatusError, TimeoutError, DecodeError) as error:
            # Nothing is lost but speed; it is asked again when the routing table changes.
            why = error.code.name if isinstance(error, StatusError) else type(error).__name__
            logger.info("replica=%s says nothing of its methods: %s", replica.uid[:12], why)
        finally:
            self._asking.discard(replica.uid)
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
            if all(methods is not None and methods.get(path) is is_unary for methods in everyone)
        }


async def _read_methods(replica: Replica) -> UnaryMethods:
    """What the replica's reflection says; nothing if it serves none. Raises `StatusError`, `DecodeError`."""
    reflection = ReplicaReflection(replica, timeout_s=_TIMEOUT_S)
    listed = await reflection.ask(ServerReflectionRequest(list_services="*"))
    names = [service.name for service in listed.list_services_response.service] if listed else []
    found: UnaryMethods = {}
    for name in [name for name in names if not name.startswith(_OWN)][:_MOST_SERVICES]:
        if answer := await reflection.ask(ServerReflectionRequest(file_containing_symbol=name)):
            found |= _methods_of(answer, name)
    return found


def _methods_of(answer: ServerReflectionResponse, service: str) -> UnaryMethods:
    found: UnaryMethods = {}
    for encoded in answer.file_descriptor_response.file_descriptor_proto:
        file = FileDescriptorProto.FromString(encoded)
        for described in file.service:
            name = f"{file.package}.{described.name}" if file.package else described.name
            if name == service:
                for method in described.method:
                    found[f"/{name}/{method.name}"] = not (method.client_streaming or method.server_streaming)
    return found
