"""Tells grpc what handles an incoming call. Every reply leaves through here, with its request id."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import grpc

from grpc_gateway.admission import CallClass
from grpc_gateway.calls import Call
from grpc_gateway.handlers import LocalHandlers, LocalMethod
from grpc_gateway.headers import REQUEST_ID, Headers
from grpc_gateway.keys import Access, Keys
from grpc_gateway.methods import method_of
from grpc_gateway.refusals import failed, key_ended
from grpc_gateway.relay import Relay
from grpc_gateway.routing import Router
from grpc_gateway.statuses import StatusError, shorten
from kit.logging import request_id

logger = logging.getLogger(__name__)

Context = Any
"""grpc.aio's ServicerContext."""


class Door(grpc.GenericRpcHandler):
    """Takes every path: local handlers answer theirs, all others go to deployments."""

    def __init__(
        self,
        router: Router,
        local: LocalHandlers,
        relay: Relay,
        keys: Keys,
        refresh: Callable[[], Awaitable[None]],
        *,
        behind_proxy: bool = False,
    ) -> None:
        """`refresh` takes over the newest routing table. `behind_proxy`: a proxy says where each call comes from."""
        self._behind_proxy = behind_proxy
        self._router = router
        self._refresh = refresh
        self._local = local
        self._relay = relay
        self._keys = keys
        self._open: dict[Call, asyncio.Task[Any]] = {}

    @property
    def for_replicas(self) -> grpc.GenericRpcHandler:
        """The same where only containers of deployments call."""
        return _ForReplicas(self)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any]":
        """The handler of one call. grpc inspects the function: it must be a coroutine function."""
        return self.handle(handler_call_details, is_inside=False)

    def handle(
        self, handler_call_details: grpc.HandlerCallDetails, *, is_inside: bool
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        """The handler of one call, which came from inside if it came where only containers of deployments call."""
        headers = Headers(handler_call_details.invocation_metadata)
        path = handler_call_details.method
        try:
            call = self._router.begin(path, headers)
            call.is_inside = is_inside
            method = self._local.find(call.path)
            if method is not None:
                return self._handle_locally(call, method)
            return self._relay_unary(call) if self._is_unary(call) else self._relay_stream(call)
        except StatusError as error:
            return self._refuse(Call(path, headers), error)
        except Exception:
            logger.exception("%s failed", path)
            return _failed(Call(path, headers))

    @property
    def open_calls(self) -> int:
        """How many calls are under way."""
        return len(self._open)

    def end_all(self, error: StatusError) -> None:
        """End every call under way with this status."""
        for call, task in self._open.items():
            call.end_with(error)
            task.cancel()

    def end_calls_of(self, key_ids: Collection[str]) -> None:
        """End every call under way that was made with one of these keys."""
        for call, task in self._open.items():
            if call.caller.key_id in key_ids and call.ended_with is None:
                call.end_with(key_ended())
                task.cancel()

    def _origin(self, call: Call) -> str:
        """Where a call without a key comes from: its address if a proxy says it, else its connection."""
        return (self._behind_proxy and call.headers.get("x-real-ip")) or call.peer

    def _is_unary(self, call: Call) -> bool:
        method = method_of(call.path)
        if method is not None:
            return method.is_unary is True
        deployment = self._router.known_target(call)
        return deployment is not None and deployment.method_types.is_unary(call.path)

    def _handle_locally(self, call: Call, method: LocalMethod) -> "grpc.RpcMethodHandler[Any, Any]":
        async def handle_unary(request: bytes, context: Context) -> bytes | None:
            return await self._run(call, context, method.handler, request, access=method.access)

        async def handle_stream(_requests: object, context: Context) -> None:
            await self._run(call, context, method.handler, access=method.access)

        if method.is_unary and not self._keys.knows(call, method.access):
            return self._judge_and_read(call, method.handler, method.access)
        if method.is_unary:
            return grpc.unary_unary_rpc_method_handler(handle_unary)
        return grpc.stream_stream_rpc_method_handler(handle_stream)

    def _relay_unary(self, call: Call) -> "grpc.RpcMethodHandler[Any, Any]":
        async def relay_unary(request: bytes, context: Context) -> bytes | None:
            return await self._run(call, context, self._pass_unary, request)

        if not self._keys.knows(call, Access.SUBMIT):
            return self._judge_and_read(call, self._pass_unary, Access.SUBMIT)
        return grpc.unary_unary_rpc_method_handler(relay_unary)

    def _judge_and_read(
        self, call: Call, handler: Callable[..., Awaitable[bytes | None]], access: Access
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        """A unary call of a caller that is not known yet. Of a unary call grpc receives the whole message first, so it
        is taken for a stream, of which little more is received than was read: the key is judged before.
        """

        async def read_and_handle(call: Call) -> None:
            request = await call.read()
            if request is None:
                raise StatusError(grpc.StatusCode.INTERNAL, "The call ended without its message.")
            if (answer := await handler(call, request)) is not None:
                await call.write(answer)

        async def handle(_requests: object, context: Context) -> None:
            await self._run(call, context, read_and_handle, access=access)

        return grpc.stream_stream_rpc_method_handler(handle)

    def _relay_stream(self, call: Call) -> "grpc.RpcMethodHandler[Any, Any]":
        async def relay_stream(_requests: object, context: Context) -> None:
            await self._run(call, context, self._pass_stream)

        return grpc.stream_stream_rpc_method_handler(relay_stream)

    def _refuse(self, call: Call, error: StatusError) -> "grpc.RpcMethodHandler[Any, Any]":
        async def refuse(_call: Call) -> None:
            raise error

        async def handle(_requests: object, context: Context) -> None:
            # A caller without a good key does not learn what there is.
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
        # An unknown method may well be unary, so it counts as such.
        is_stream = target.deployment.method_types.is_stream(call.path) if method is None else method.is_unary is False
        await self._relay.stream(call, target, call_class=CallClass.STREAM if is_stream else CallClass.INFER)

    async def _run(
        self,
        call: Call,
        context: Context,
        handler: Callable[..., Awaitable[bytes | None]],
        *arguments: bytes,
        access: Access = Access.SUBMIT,
    ) -> bytes | None:
        """Let `handler` answer the call, and turn the outcome into a status."""
        call.bind(context)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - grpc runs handlers in tasks
        self._open[call] = task
        request_id.set(call.headers.request_id)
        answer = None
        try:
            call.caller = await self._keys.caller_of(call.headers.key, access, is_inside=call.is_inside)
            call.holder = call.caller.owner or self._origin(call)
            answer = await handler(call, *arguments)
        except StatusError as error:
            await _abort(call, context, error)
        except asyncio.CancelledError:
            if call.ended_with is None:
                raise
            await _abort(call, context, call.ended_with)
        except grpc.aio.InternalError as error:
            # Nothing can be sent any more: the caller is gone, and its cancel is on its way here.
            raise asyncio.CancelledError from error
        except Exception:
            logger.exception("%s failed", call.path)
            await _abort(call, context, failed())
        finally:
            del self._open[call]
        context.set_trailing_metadata(_trailers(call, call.trailers))
        return answer


class _ForReplicas(grpc.GenericRpcHandler):
    def __init__(self, door: Door) -> None:
        self._door = door

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any]":
        return self._door.handle(handler_call_details, is_inside=True)


def _failed(call: Call) -> "grpc.RpcMethodHandler[Any, Any]":
    async def fail(_requests: object, context: Context) -> None:
        await _abort(call, context, failed())

    return grpc.stream_stream_rpc_method_handler(fail)


async def _abort(call: Call, context: Context, status: StatusError) -> None:
    trailers = _trailers(call, (*call.trailers, *status.trailers))
    try:
        await context.abort(status.code, shorten(status.details), trailers)
    except grpc.aio.InternalError as error:
        raise asyncio.CancelledError from error


def _trailers(call: Call, trailers: Any) -> tuple[tuple[str, str | bytes], ...]:
    """The replica's own trailers, and the request id once."""
    return (*(pair for pair in trailers if pair[0] != REQUEST_ID), (REQUEST_ID, call.headers.request_id))
