"""Three applications of Ray Serve behind one port: `app1`, `num-lookup` and `image-classifier`.

They are what the clients in docs/grpc/ray.md call. Nothing here knows of the server: the same file runs on any Ray.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
from network import Network
from pixels import decode_url, normalize
from ray import serve
from ray.serve.grpc_util import RayServegRPCContext, gRPCInputStream
from user_defined_protos_pb2 import (
    ImageClass,
    ImageData,
    UserDefinedMessage,
    UserDefinedMessage2,
    UserDefinedResponse,
    UserDefinedResponse2,
)

STREAM_PAUSE_S = 0.1


@serve.deployment
class Greeter:
    """Greets by every kind of call."""

    def __call__(self, message: UserDefinedMessage) -> UserDefinedResponse:
        """Greet, and double the number. A negative one raises an error that nothing handles."""
        if message.num < 0:
            raise ValueError(f"{message.num} is negative")
        return UserDefinedResponse(greeting=_greeting(message), num=message.num * 2)

    @serve.multiplexed(max_num_models_per_replica=1)
    async def load(self, model_id: str) -> str:
        """One model at a time; Ray lets go of the one before."""
        print(f"loading model: {model_id}", flush=True)
        return f"loading model: {model_id}"

    async def Multiplexing(self, _message: UserDefinedMessage2) -> UserDefinedResponse2:
        """Answer with the model that the caller's metadata names."""
        model = await self.load(serve.get_multiplexed_model_id())
        return UserDefinedResponse2(greeting=f"Method2 called model, {model}")

    async def Streaming(self, message: UserDefinedMessage) -> AsyncIterator[UserDefinedResponse]:
        """Answer ten times, a tenth of a second apart."""
        for number in range(10):
            yield UserDefinedResponse(greeting=f"{number}: {_greeting(message)}", num=message.num * 2 + number)
            await asyncio.sleep(STREAM_PAUSE_S)

    async def Collecting(self, messages: gRPCInputStream[UserDefinedMessage]) -> UserDefinedResponse:
        """Answer with the number of messages and the sum of their numbers."""
        numbers = [message.num async for message in messages]
        return UserDefinedResponse(greeting=f"{len(numbers)} messages", num=sum(numbers))

    async def Chatting(self, messages: gRPCInputStream[UserDefinedMessage]) -> AsyncIterator[UserDefinedResponse]:
        """Greet each name. `bye` ends the call while the client may still be sending."""
        async for message in messages:
            yield UserDefinedResponse(greeting=_greeting(message), num=message.num * 2)
            if message.name == "bye":
                return


@serve.deployment
class NumLookup:
    """Gives each new name a number; the status says whether the name was known."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def __call__(self, message: UserDefinedMessage, grpc_context: RayServegRPCContext) -> UserDefinedResponse:
        """Answer INVALID_ARGUMENT to a name's first call and OK from then on; the number is in the trailers, too."""
        known = message.name in self._numbers
        number = self._numbers.setdefault(message.name, len(self._numbers))
        grpc_context.set_code(grpc.StatusCode.OK if known else grpc.StatusCode.INVALID_ARGUMENT)
        grpc_context.set_details(f"{message.name} {'found' if known else 'not found, adding to nums'}.")
        grpc_context.set_trailing_metadata([("num", str(number))])
        return UserDefinedResponse(greeting=_greeting(message), num=number)


@serve.deployment
class Preprocessor:
    """The classifier's first step, which Ray may run elsewhere and more than once."""

    def prepare(self, url: str) -> np.ndarray:
        """The image in a `data:` URL as the network takes it. Raises `ValueError`."""
        return normalize(decode_url(url))


@serve.deployment
class Classifier:
    """Composed of two deployments by a handle: this one knows the other only as that."""

    def __init__(self, preprocessor: Any) -> None:
        self._preprocessor = preprocessor
        self._network = Network()

    async def Predict(self, image: ImageData, grpc_context: RayServegRPCContext) -> ImageClass:
        """Answer with the image's likeliest classes, or INVALID_ARGUMENT and what is wrong with it."""
        try:
            pixels = await self._preprocessor.prepare.remote(image.url)
        except ValueError as error:
            # What a deployment raises arrives as its own type, with the stack of the other process before it.
            grpc_context.set_code(grpc.StatusCode.INVALID_ARGUMENT)
            grpc_context.set_details(str(error).strip().splitlines()[-1])
            return ImageClass()
        classes, probabilities = self._network.classify(pixels)
        return ImageClass(classes=classes, probabilities=probabilities)


def _greeting(message: UserDefinedMessage) -> str:
    return f"Hello {message.name} from {message.origin}"


APPLICATIONS = {
    "app1": Greeter.bind(),
    "num-lookup": NumLookup.bind(),
    "image-classifier": Classifier.bind(Preprocessor.bind()),
}
