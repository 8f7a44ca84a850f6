"""KServe v2's questions about servers and models, answered from the routing table.

No replica is asked, so that a busy one cannot make its server look dead. The exception is a version of a model, which
the table does not know.
"""

import grpc

from contract.deployments import DeploymentStatus
from contract.serving import WireProtocol
from grpc_gateway.calls import Call
from grpc_gateway.deployments import Deployment
from grpc_gateway.generated.kserve_pb2 import (
    ModelReadyRequest,
    ModelReadyResponse,
    RepositoryIndexRequest,
    RepositoryIndexResponse,
    ServerLiveResponse,
    ServerMetadataResponse,
    ServerReadyResponse,
)
from grpc_gateway.handlers import LocalHandlers
from grpc_gateway.keys import Access
from grpc_gateway.methods import KSERVE
from grpc_gateway.protocols.messages import parse
from grpc_gateway.refusals import not_populated
from grpc_gateway.replicas import Replica
from grpc_gateway.routing import Router
from grpc_gateway.statuses import status_error_of_call
from grpc_gateway.table import Table

SERVER_NAME = "inference-server"
ASK_S = 2.0
"""How long a replica may take to say whether it has a version."""
_STATES = {
    DeploymentStatus.IDLE: "READY",
    DeploymentStatus.STARTING: "LOADING",
    DeploymentStatus.READY: "READY",
    DeploymentStatus.FAILING: "UNAVAILABLE",
}


class KServe:
    """Answers the five methods; restricted keys hold for them, too."""

    def __init__(self, table: Table, router: Router, version: str) -> None:
        self._table = table
        self._router = router
        self._version = version

    def install(self, handlers: LocalHandlers) -> None:
        """Answer the methods: those about a server's life without a key, while the others tell names."""
        handlers.add_unary(f"{KSERVE}ServerLive", self._live, Access.OPEN)
        handlers.add_unary(f"{KSERVE}ServerReady", self._ready, Access.OPEN)
        handlers.add_unary(f"{KSERVE}ModelReady", self._model_ready)
        handlers.add_unary(f"{KSERVE}ServerMetadata", self._metadata)
        handlers.add_unary(f"{KSERVE}RepositoryIndex", self._index)

    async def _live(self, call: Call, _request: bytes) -> bytes:
        self._server(call)
        return ServerLiveResponse(live=True).SerializeToString()

    async def _ready(self, call: Call, _request: bytes) -> bytes:
        self._server(call)
        # A server that was named is as ready as its model; all of them together are as ready as the gateway.
        named = self._router.named(call)
        is_ready = self._table.is_populated and not self._table.is_draining
        return ServerReadyResponse(ready=is_ready and (named is None or named.is_ready)).SerializeToString()

    async def _model_ready(self, call: Call, request: bytes) -> bytes:
        if not self._table.is_populated:
            raise not_populated()
        asked = parse(ModelReadyRequest, request)
        # An unknown model is no error: clients of older servers poll until the answer is true.
        deployment = self._router.by_model(call, asked.name)
        self._router.check_restriction(call, deployment)
        if deployment is not None and deployment.replicas and asked.version:
            answer = await _ask(deployment.replicas[0], call, request)
            if answer is not None:
                return answer
        return ModelReadyResponse(ready=deployment is not None and deployment.is_ready).SerializeToString()

    async def _metadata(self, call: Call, _request: bytes) -> bytes:
        self._server(call)
        return ServerMetadataResponse(name=SERVER_NAME, version=self._version).SerializeToString()

    async def _index(self, call: Call, request: bytes) -> bytes:
        if not self._table.is_populated:
            raise not_populated()
        deployment = self._server(call)
        shown = self._table.deployments.values() if deployment is None else [deployment]
        only_ready = parse(RepositoryIndexRequest, request).ready
        models = [
            model
            for shown_one in shown
            if shown_one.route.serving.protocol is WireProtocol.KSERVE
            if shown_one.is_ready or not only_ready
            for model in _entries(shown_one, is_named=deployment is not None)
        ]
        return RepositoryIndexResponse(models=models).SerializeToString()

    def _server(self, call: Call) -> Deployment | None:
        deployment = self._router.of_server(call)
        self._router.check_restriction(call, deployment)
        return deployment


async def _ask(replica: Replica, call: Call, request: bytes) -> bytes | None:
    """The replica's own answer, past its queue; None if none comes. Raises `StatusError` with the replica's error."""
    invoke: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = replica.channel.unary_unary(call.path)
    try:
        return await invoke(request, timeout=ASK_S, metadata=call.headers.forward)
    except grpc.aio.AioRpcError as error:
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            return None
        raise status_error_of_call(error) from error


def _entries(deployment: Deployment, *, is_named: bool) -> list[RepositoryIndexResponse.ModelIndex]:
    """Its models: of a deployment that the call named, those too that calls must name it for."""
    route = deployment.route
    names = route.inner_model_names if is_named else route.model_names
    state = "READY" if deployment.is_ready else _STATES[route.status]
    version, reason = str(route.model_version), route.detail or ""
    return [
        RepositoryIndexResponse.ModelIndex(name=name, version=version, state=state, reason=reason) for name in names
    ]
