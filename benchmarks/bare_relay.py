"""The smallest possible relay in Python: it takes unary calls of any method as bytes and sends them on.

It answers health checks itself: while it is otherwise idle, they show how soon this machine lets an idle process run.

`benchmarks.grpc` starts it as a process: `python -m benchmarks.bare_relay TARGET` prints its port, and for each line on
its standard input the CPU time that it has used, in microseconds.
"""

import asyncio
import resource
import sys
from typing import Any

import grpc
import grpc.aio

HEALTH = "/grpc.health.v1.Health/Check"
_UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any]":
        send: Any = self._channel.unary_unary(handler_call_details.method)

        async def handle(request: bytes, _context: Any) -> bytes:
            answer: bytes = await send(request)
            return answer

        async def is_there(_request: bytes, _context: Any) -> bytes:
            return b""

        is_health = handler_call_details.method == HEALTH
        return grpc.unary_unary_rpc_method_handler(is_there if is_health else handle)


async def serve(target: str) -> None:
    """Serve until standard input ends."""
    async with grpc.aio.insecure_channel(target, _UNLIMITED) as channel:
        server = grpc.aio.server(handlers=[_Handlers(channel)], options=_UNLIMITED)
        print(server.add_insecure_port("127.0.0.1:0"), flush=True)
        await server.start()
        while await asyncio.to_thread(sys.stdin.readline):
            used = resource.getrusage(resource.RUSAGE_SELF)
            print((used.ru_utime + used.ru_stime) * 1e6, flush=True)
        await server.stop(None)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
