"""Server reflection: what the gateway and the deployments behind it serve, for tools that build requests from it.

The gateway describes the public services itself and asks replicas about theirs. If two deployments define a name
differently the first by id counts; a call with the metadata `application`, or with a prefix, is about that one alone.
"""

import asyncio
import logging
from collections.abc import Sequence

import grpc
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha.reflection_pb2 import (
    ErrorResponse,
    ExtensionNumberResponse,
    FileDescriptorResponse,
    ListServiceResponse,
    ServerReflectionRequest,
    ServerReflectionResponse,
    ServiceResponse,
)

from contract.access import Scope
from grpc_gateway.admission import CallClass
from grpc_gateway.calls import Call
from grpc_gateway.deployments import Deployment
from grpc_gateway.handlers import LocalHandlers
from grpc_gateway.protocols.cache import Cache
from grpc_gateway.protocols.descriptors import OwnDescriptors
from grpc_gateway.replica_reflection import REFLECTION_PATHS, ReplicaReflection
from grpc_gateway.replicas import Replica
from grpc_gateway.routing import Router
from grpc_gateway.statuses import StatusError
from grpc_gateway.table import Table

logger = logging.getLogger(__name__)

ASK_S = 2.0
"""How long a replica may take to answer a question."""
_ASKED_AT_ONCE = 16
_CACHED_ANSWERS = 4096
_CACHED_BYTES = 16 * 1024**2
_SILENT = b""
"""Cached in place of a question: the replica serves no reflection at all."""


class Reflection:
    """Answers both versions of reflection. It belongs to one event loop."""

    def __init__(self, table: Table, router: Router) -> None:
        self._table = table
        self._router = router
        self._own = OwnDescriptors()
        # What a replica serves never changes; a replica that is replaced has another uid.
        self._cache = Cache(_CACHED_ANSWERS, _CACHED_BYTES)
        self._asking = asyncio.Semaphore(_ASKED_AT_ONCE)

    def install(self, handlers: LocalHandlers) -> None:
        """Answer the one method of both versions."""
        for path in REFLECTION_PATHS:
            handlers.add_stream(path, self.serve)

    async def serve(self, call: Call) -> None:
        """Answer the questions of one stream, in order."""
        narrowed = self._router.named(call)
        last: Deployment | None = None
        async for message in call.requests():
            try:
                question = ServerReflectionRequest.FromString(message)
            except DecodeError as error:
                raise StatusError(grpc.StatusCode.INVALID_ARGUMENT, "This is no ServerReflectionRequest.") from error
            kind = question.WhichOneof("message_request")
            if kind is None:
                answer = _error(grpc.StatusCode.INVALID_ARGUMENT, "The request asks nothing.")
            elif kind == "list_services":
                answer = await self._list(call, narrowed)
            else:
                # A file's name says less than a symbol: it is taken to mean the deployment that answered before.
                first = last if kind == "file_by_filename" else None
                answer, last = await self._find(call, question, narrowed, first)
            answer.original_request.CopyFrom(question)
            answer.valid_host = question.host
            await call.write(answer.SerializeToString())

    async def _list(self, call: Call, narrowed: Deployment | None) -> ServerReflectionResponse:
        question = ServerReflectionRequest(list_services="")
        names = set() if narrowed else set(self._own.services)
        for deployment, answer in await self._ask_all(call, question, narrowed):
            names |= {service.name for service in answer.list_services_response.service}
            if deployment.route.serving.service in self._own.services:
                names.add(str(deployment.route.serving.service))
        services = [ServiceResponse(name=name) for name in sorted(names)]
        return ServerReflectionResponse(list_services_response=ListServiceResponse(service=services))

    async def _find(
        self, call: Call, question: ServerReflectionRequest, narrowed: Deployment | None, first: Deployment | None
    ) -> tuple[ServerReflectionResponse, Deployment | None]:
        """The answer, and the deployment that gave it.

        If a deployment is asked alone, its own description goes first; else the gateway's does, for the gateway answers
        the calls to its own services.
        """
        own = self._find_own(question)
        if own is not None and narrowed is None and first is None:
            return own, None
        question = _without_host(question)
        answers = await self._ask_all(call, question, narrowed)
        # A stable sort: by id, but for the one that answered before.
        for deployment, answer in sorted(answers, key=lambda pair: pair[0] is not first):
            if not answer.HasField("error_response") and answer.WhichOneof("message_response"):
                return answer, deployment
        if own is not None:
            return own, None
        asked = question.file_containing_symbol or question.file_by_filename or "what was asked for"
        return _error(grpc.StatusCode.NOT_FOUND, f"Nothing here describes {asked}."), first

    def _find_own(self, question: ServerReflectionRequest) -> ServerReflectionResponse | None:
        kind = question.WhichOneof("message_request")
        if kind == "all_extension_numbers_of_type":
            name = question.all_extension_numbers_of_type
            numbers = ExtensionNumberResponse(base_type_name=name)
            has_it = self._own.has_message(name)
            return ServerReflectionResponse(all_extension_numbers_response=numbers) if has_it else None
        file = None
        if kind == "file_by_filename":
            file = self._own.file_named(question.file_by_filename)
        elif kind == "file_containing_symbol":
            file = self._own.file_with(question.file_containing_symbol)
        if file is None:
            return None
        return ServerReflectionResponse(file_descriptor_response=FileDescriptorResponse(file_descriptor_proto=[file]))

    async def _ask_all(
        self, call: Call, question: ServerReflectionRequest, narrowed: Deployment | None
    ) -> Sequence[tuple[Deployment, ServerReflectionResponse]]:
        """What deployments answer, by id. Unless narrowed to one, only those with a replica are asked."""
        if narrowed is not None:
            return [(narrowed, await self._ask_one(call, question, narrowed))]
        ready = [deployment for deployment in self._table.deployments.values() if deployment.replicas]
        answers = await asyncio.gather(*(self._ask(call, question, each.replicas) for each in ready))
        return list(zip(ready, answers, strict=True))

    async def _ask_one(
        self, call: Call, question: ServerReflectionRequest, deployment: Deployment
    ) -> ServerReflectionResponse:
        needs_replica = not deployment.replicas and deployment.route.serving.service not in self._own.services
        if needs_replica and call.caller.may(Scope.SUBMIT):
            # Like any other call to the deployment, this one starts a replica.
            deployment.release(await deployment.acquire(CallClass.INFER, "", call.time_remaining()), CallClass.INFER)
        return await self._ask(call, question, deployment.replicas)

    async def _ask(
        self, call: Call, question: ServerReflectionRequest, replicas: Sequence[Replica]
    ) -> ServerReflectionResponse:
        """One replica's answer; an empty one if it gives none."""
        if not replicas:
            return ServerReflectionResponse()
        # Always the same one, so that its answers are found in the cache.
        replica = min(replicas, key=lambda each: each.uid)
        encoded = question.SerializeToString(deterministic=True)
        cached = self._cache.get((replica.uid, encoded)) or self._cache.get((replica.uid, _SILENT))
        if cached is not None:
            return ServerReflectionResponse.FromString(cached)
        reflection = ReplicaReflection(replica, timeout_s=ASK_S, metadata=tuple(call.headers.forward))
        try:
            async with self._asking:
                answer = await reflection.ask(question)
        except StatusError as error:
            logger.debug("replica=%s answers no reflection: %s", replica.uid[:12], error.code.name)
            return ServerReflectionResponse()
        if answer is None:
            self._cache.put((replica.uid, _SILENT), b"")
            return ServerReflectionResponse()
        self._cache.put((replica.uid, encoded), answer.SerializeToString())
        return answer


def _without_host(question: ServerReflectionRequest) -> ServerReflectionRequest:
    bare = ServerReflectionRequest()
    bare.CopyFrom(question)
    bare.host = ""
    return bare


def _error(code: grpc.StatusCode, text: str) -> ServerReflectionResponse:
    return ServerReflectionResponse(error_response=ErrorResponse(error_code=code.value[0], error_message=text))
