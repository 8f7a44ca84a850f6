"""The calls of KServe v2 that ask after servers and models, answered from the routing table.

No replica is asked, so that a busy one cannot make its server look dead; but for one version of a model, of which the
table knows nothing.
"""

import grpc

from contract.deployments import DeploymentStatus
from contract.serving import WireProtocol
from contract.wire import bytes_field, peek, peek_text, text_field, varint_field
from grpc_gateway.calls import Call
from grpc_gateway.deployments import Deployment
from grpc_gateway.handlers import LocalHandlers
from grpc_gateway.methods import KSERVE
from grpc_gateway.replicas import Replica
from grpc_gateway.routing import Router
from grpc_gateway.statuses import refusal_of_call
from grpc_gateway.table import Table
from grpc_gateway.texts import not_populated

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
    """The five methods; restricted keys hold for them, too."""

    def __init__(self, table: Table, router: Router, version: str) -> None:
        self._table = table
        self._router = router
        self._version = version

    def install(self, handlers: LocalHandlers) -> None:
        """Whether a server lives is asked without a key; the others tell names."""
        handlers.add_unary(f"{KSERVE}ServerLive", self._live, is_open=True)
        handlers.add_unary(f"{KSERVE}ServerReady", self._ready, is_open=True)
        handlers.add_unary(f"{KSERVE}ModelReady", self._model_ready)
        handlers.add_unary(f"{KSERVE}ServerMetadata", self._metadata)
        handlers.add_unary(f"{KSERVE}RepositoryIndex", self._index)

    async def _live(self, call: Call, _request: bytes) -> bytes:
        self._server(call)
        return varint_field(1, True)

    async def _ready(self, call: Call, _request: bytes) -> bytes:
        self._server(call)
        # A server that was named is as ready as its model; all of them together are as ready as the gateway.
        named = self._router.named(call)
        is_ready = self._table.is_populated and not self._table.is_draining
        return varint_field(1, is_ready and (named is None or named.is_ready))

    async def _model_ready(self, call: Call, request: bytes) -> bytes:
        if not self._table.is_populated:
            raise not_populated()
        # Unknown is not an error: clients of older servers poll until it is true.
        deployment = self._router.by_model(call, peek_text(request, (1,)))
        self._router.check_restriction(call, deployment)
        if deployment is not None and deployment.replicas and peek_text(request, (2,)):
            answer = await _ask(deployment.replicas[0], call, request)
            if answer is not None:
                return answer
        return varint_field(1, deployment is not None and deployment.is_ready)

    async def _metadata(self, call: Call, _request: bytes) -> bytes:
        self._server(call)
        return text_field(1, SERVER_NAME) + text_field(2, self._version)

    async def _index(self, call: Call, request: bytes) -> bytes:
        if not self._table.is_populated:
            raise not_populated()
        deployment = self._server(call)
        shown = self._table.deployments.values() if deployment is None else [deployment]
        only_ready = bool(peek(request, (2,)))
        return b"".join(
            bytes_field(1, model)
            for shown_one in shown
            if shown_one.route.serving.protocol is WireProtocol.KSERVE
            if shown_one.is_ready or not only_ready
            for model in _entries(shown_one)
        )

    def _server(self, call: Call) -> Deployment | None:
        deployment = self._router.of_server(call)
        self._router.check_restriction(call, deployment)
        return deployment


async def _ask(replica: Replica, call: Call, request: bytes) -> bytes | None:
    """What the replica itself answers, past its queue; None where it does not. Raises `Refusal` with its error."""
    invoke: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = replica.channel.unary_unary(call.path)
    try:
        return await invoke(request, timeout=ASK_S, metadata=call.headers.forward)
    except grpc.aio.AioRpcError as error:
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            return None
        raise refusal_of_call(error) from error


def _entries(deployment: Deployment) -> list[bytes]:
    route = deployment.route
    state = "READY" if deployment.is_ready else _STATES[route.status]
    rest = text_field(2, str(route.model_version)) + text_field(3, state) + text_field(4, route.detail or "")
    return [text_field(1, name) + rest for name in route.model_names]
