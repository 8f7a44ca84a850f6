"""What grpc asks for every incoming call: who handles it. Every reply leaves through here, with its request id."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from contract.logging import request_id
from grpc_gateway.calls import Call
from grpc_gateway.handlers import LocalHandlers, LocalMethod
from grpc_gateway.headers import REQUEST_ID, Headers
from grpc_gateway.keys import Keys
from grpc_gateway.lanes import Lane
from grpc_gateway.methods import method_of
from grpc_gateway.relay import Relay
from grpc_gateway.routing import Router
from grpc_gateway.statuses import Refusal, shorten
from grpc_gateway.texts import failed

logger = logging.getLogger(__name__)

Context = Any
"""grpc.aio's ServicerContext."""


class Door(grpc.GenericRpcHandler):
    """Takes every path there is: local handlers answer theirs, all others go to deployments."""

    def __init__(
        self, router: Router, local: LocalHandlers, relay: Relay, keys: Keys, refresh: Callable[[], Awaitable[None]]
    ) -> None:
        """`refresh` takes the newest routing table over."""
        self._router = router
        self._refresh = refresh
        self._local = local
        self._relay = relay
        self._keys = keys
        self._open: dict[Call, asyncio.Task[Any]] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any]":
        """The handler of one call. grpc looks at the kind of function: it must be a coroutine function."""
        headers = Headers(handler_call_details.invocation_metadata)
        path = handler_call_details.method
        try:
            call = self._router.begin(path, headers)
            method = self._local.find(call.path)
            if method is not None:
                return self._handle_locally(call, method)
            return self._relay_unary(call) if self._is_unary(call) else self._relay_stream(call)
        except Refusal as refusal:
            return self._refuse(Call(path, headers), refusal)
        except Exception:
            logger.exception("%s failed", path)
            return _failed(Call(path, headers))

    @property
    def open_calls(self) -> int:
        """Calls under way."""
        return len(self._open)

    def end_all(self, refusal: Refusal) -> None:
        """End every call that is under way with this status."""
        for call, task in self._open.items():
            call.end_with(refusal)
            task.cancel()

    def _is_unary(self, call: Call) -> bool:
        method = method_of(call.path)
        if method is not None:
            return method.is_unary is True
        deployment = self._router.known_target(call)
        return deployment is not None and deployment.kinds.is_unary(call.path)

    def _handle_locally(self, call: Call, method: LocalMethod) -> "grpc.RpcMethodHandler[Any, Any]":
        async def handle_unary(request: bytes, context: Context) -> bytes | None:
            return await self._run(call, context, method.handler, request, is_open=method.is_open)

        async def handle_stream(_requests: object, context: Context) -> None:
            await self._run(call, context, method.handler, is_open=method.is_open)

        if method.is_unary:
            return grpc.unary_unary_rpc_method_handler(handle_unary)
        return grpc.stream_stream_rpc_method_handler(handle_stream)

    def _relay_unary(self, call: Call) -> "grpc.RpcMethodHandler[Any, Any]":
        async def relay_unary(request: bytes, context: Context) -> bytes | None:
            return await self._run(call, context, self._pass_unary, request)

        return grpc.unary_unary_rpc_method_handler(relay_unary)

    def _relay_stream(self, call: Call) -> "grpc.RpcMethodHandler[Any, Any]":
        async def relay_stream(_requests: object, context: Context) -> None:
            await self._run(call, context, self._pass_stream)

        return grpc.stream_stream_rpc_method_handler(relay_stream)

    def _refuse(self, call: Call, refusal: Refusal) -> "grpc.RpcMethodHandler[Any, Any]":
        async def refuse(_call: Call) -> None:
            raise refusal

        async def handle(_requests: object, context: Context) -> None:
            # Who shows no key does not learn what there is.
            await self._run(call, context, refuse)

        return grpc.stream_stream_rpc_method_handler(handle)

    async def _pass_unary(self, call: Call, request: bytes) -> bytes:
        if not self._router.is_known(call):
            await self._refresh()
        return await self._relay.unary(call, self._router.find(call, request), request)

    async def _pass_stream(self, call: Call) -> None:
        message = b""
        if not self._router.is_known(call):
            await self._refresh()
        if self._router.names_model(call):
            first = await call.read()
            if first is not None:
                message = first
                call.unread(first)
        target = self._router.find(call, message)
        method = method_of(call.path)
        # A method that nobody knows may well be a unary one: it counts as such.
        is_stream = target.deployment.kinds.is_stream(call.path) if method is None else method.is_unary is False
        await self._relay.stream(call, target, lane=Lane.STREAM if is_stream else Lane.INFER)

    async def _run(
        self,
        call: Call,
        context: Context,
        handler: Callable[..., Awaitable[bytes | None]],
        *arguments: bytes,
        is_open: bool = False,
    ) -> bytes | None:
        """Let `handler` answer the call, and turn whatever comes of it into a status."""
        call.bind(context)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - grpc runs handlers in tasks
        self._open[call] = task
        request_id.set(call.headers.request_id)
        answer = None
        try:
            if not is_open:
                call.caller = await self._keys.caller_of(call.headers.key)
            answer = await handler(call, *arguments)
        except Refusal as refusal:
            await _abort(call, context, refusal)
        except asyncio.CancelledError:
            if call.ended_with is None:
                raise
            await _abort(call, context, call.ended_with)
        except grpc.aio.InternalError as error:
            # What cannot be sent any more: the caller is gone, and its cancel is on its way here.
            raise asyncio.CancelledError from error
        except Exception:
            logger.exception("%s failed", call.path)
            await _abort(call, context, failed())
        finally:
            del self._open[call]
        context.set_trailing_metadata(_trailers(call, call.trailers))
        return answer


def _failed(call: Call) -> "grpc.RpcMethodHandler[Any, Any]":
    async def fail(_requests: object, context: Context) -> None:
        await _abort(call, context, failed())

    return grpc.stream_stream_rpc_method_handler(fail)


async def _abort(call: Call, context: Context, refusal: Refusal) -> None:
    trailers = _trailers(call, (*call.trailers, *refusal.trailers))
    try:
        await context.abort(refusal.code, shorten(refusal.details), trailers)
    except grpc.aio.InternalError as error:
        raise asyncio.CancelledError from error


def _trailers(call: Call, trailers: Any) -> tuple[tuple[str, str | bytes], ...]:
    """The replica's own, and the request id once."""
    return (*(pair for pair in trailers if pair[0] != REQUEST_ID), (REQUEST_ID, call.headers.request_id))
