"""A user's own service: every kind of call, with statuses, details and trailers that the handlers choose.

`APPLICATION`, set when the image is built, picks what `__call__` does: `greeting` answers, `num_lookup` knows a name
only from its second call on.
"""

import os
import threading
import time
from collections.abc import Iterator

import grpc
import user_defined_protos_pb2_grpc
from server import serve
from user_defined_protos_pb2 import (
    UserDefinedMessage,
    UserDefinedMessage2,
    UserDefinedResponse,
    UserDefinedResponse2,
)

PORT = 9000


class GreetingService(user_defined_protos_pb2_grpc.UserDefinedServiceServicer):
    """Greets by every kind of call."""

    def __init__(self) -> None:
        self._loaded: str | None = None
        self._lock = threading.Lock()

    def __call__(self, request: UserDefinedMessage, context: grpc.ServicerContext) -> UserDefinedResponse:
        """Greet, and double the number. A negative one raises an error that nothing handles."""
        if request.num < 0:
            raise ValueError(f"{request.num} is negative")
        return UserDefinedResponse(greeting=_greeting(request), num=request.num * 2)

    def Multiplexing(self, request: UserDefinedMessage2, context: grpc.ServicerContext) -> UserDefinedResponse2:
        """Answer with the model that the caller's metadata names. One model is loaded at a time."""
        metadata = dict(context.invocation_metadata())
        with self._lock:
            if self._loaded != metadata.get("multiplexed_model_id", ""):
                self._loaded = str(metadata.get("multiplexed_model_id", ""))
                print(f"loading model: {self._loaded}", flush=True)
            return UserDefinedResponse2(greeting=f"Method2 called model, loading model: {self._loaded}")

    def Streaming(self, request: UserDefinedMessage, context: grpc.ServicerContext) -> Iterator[UserDefinedResponse]:
        """Answer ten times, a tenth of a second apart."""
        for number in range(10):
            if not context.is_active():
                print("Streaming: the client is gone", flush=True)
                return
            yield UserDefinedResponse(greeting=f"{number}: {_greeting(request)}", num=request.num * 2 + number)
            time.sleep(0.1)

    def Collecting(self, requests: Iterator[UserDefinedMessage], context: grpc.ServicerContext) -> UserDefinedResponse:
        """Answer with the number of messages and the sum of their numbers."""
        numbers = [request.num for request in requests]
        return UserDefinedResponse(greeting=f"{len(numbers)} messages", num=sum(numbers))

    def Chatting(
        self, requests: Iterator[UserDefinedMessage], context: grpc.ServicerContext
    ) -> Iterator[UserDefinedResponse]:
        """Greet each name. `bye` ends the call and `stranger` is refused, while the client may still be sending."""
        for request in requests:
            if request.name == "stranger":
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "we have not met")
            yield UserDefinedResponse(greeting=_greeting(request), num=request.num * 2)
            if request.name == "bye":
                return


class NumLookupService(GreetingService):
    """Gives each new name a number; the status says whether the name was known."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers: dict[str, int] = {}

    def __call__(self, request: UserDefinedMessage, context: grpc.ServicerContext) -> UserDefinedResponse:
        """Answer INVALID_ARGUMENT to a name's first call and OK from then on; the number is in the trailers, too."""
        with self._lock:
            known = request.name in self._numbers
            number = self._numbers.setdefault(request.name, len(self._numbers))
        context.set_code(grpc.StatusCode.OK if known else grpc.StatusCode.INVALID_ARGUMENT)
        context.set_details(f"{request.name} {'found' if known else 'not found, adding to nums'}.")
        context.set_trailing_metadata((("num", str(number)),))
        return UserDefinedResponse(greeting=_greeting(request), num=number)


def _greeting(request: UserDefinedMessage) -> str:
    return f"Hello {request.name} from {request.origin}"


APPLICATIONS = {"greeting": GreetingService, "num_lookup": NumLookupService}

if __name__ == "__main__":
    service = APPLICATIONS[os.environ.get("APPLICATION", "greeting")]()
    add = user_defined_protos_pb2_grpc.add_UserDefinedServiceServicer_to_server
    serve(PORT, {"userdefinedprotos.UserDefinedService": lambda server: add(service, server)})
