"""A replica that speaks KServe v2, as far as streams need it: real grpc.aio, also as a program of its own.

What a request's id says is what happens: `bad` is answered with an error inside the stream, `end` ends the stream with
OK, `fail` with a status, `quiet` is not answered, `three` is answered three times, and `busy` after a minute. All
others are given back.
"""

import asyncio
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import grpc

from tests.stubs import OWN, load_stubs


def kserve_stubs() -> Any:
    return load_stubs(OWN, "kserve")


def kserve_servicer() -> Any:
    stubs = kserve_stubs()
    messages = stubs.messages

    class KServe(stubs.services.GRPCInferenceServiceServicer):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            self.streams: list[dict[str, Any]] = []
            self.cancelled = threading.Event()

        async def ModelStreamInfer(  # noqa: N802
            self, requests: AsyncIterator[Any], context: Any
        ) -> AsyncIterator[Any]:
            self.streams.append(dict(context.invocation_metadata()))
            context.set_trailing_metadata((("served", "yes"),))
            await context.send_initial_metadata((("replica", "here"),))
            try:
                async for request in requests:
                    if request.id == "end":
                        return
                    if request.id == "fail":
                        await context.abort(grpc.StatusCode.ABORTED, "the server gave up")
                    if request.id == "busy":
                        await asyncio.sleep(60)
                    for number in range({"quiet": 0, "three": 3}.get(request.id, 1)):
                        yield answer(request, number)
                # Answers that are still to come when the client has ended its side.
                yield messages.ModelStreamInferResponse(infer_response=messages.ModelInferResponse(id="last"))
            except asyncio.CancelledError:
                self.cancelled.set()
                raise

    def answer(request: Any, number: int) -> Any:
        made = messages.ModelInferResponse(
            model_name=request.model_name, id=request.id, raw_output_contents=request.raw_input_contents
        )
        made.parameters["number"].int64_param = number
        error = "the input is bad" if request.id == "bad" else ""
        return messages.ModelStreamInferResponse(error_message=error, infer_response=made)

    return KServe()


def add_kserve(server: grpc.aio.Server, servicer: Any) -> None:
    kserve_stubs().services.add_GRPCInferenceServiceServicer_to_server(servicer, server)


async def _serve() -> None:
    server = grpc.aio.server()
    add_kserve(server, kserve_servicer())
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    sys.exit(asyncio.run(_serve()))
