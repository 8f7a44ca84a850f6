"""Two deployments that work together: the classifier has another deployment prepare its images, through the gateway.

The image has both services and is deployed twice, once for each. Every replica is given `GRPC_GATEWAY` and
`GATEWAY_TOKEN`; with the token, its calls count as the deployment owner's.
"""

import os

import grpc
import numpy as np
import preprocessing_pb2_grpc
import user_defined_protos_pb2_grpc
from network import Network
from pixels import SIDE, decode_url, normalize
from preprocessing_pb2 import EncodedImage, Pixels
from server import OPTIONS, serve
from user_defined_protos_pb2 import ImageClass, ImageData

PORT = 9000
PREPROCESSOR = "image-preprocessor"
"""The `application` of the other deployment."""
PREPROCESSING_S = 30.0
"""The most that preparing may take; a nearer deadline of the caller wins. Without one, grpc reports a huge time."""


class Preprocessing(preprocessing_pb2_grpc.PreprocessingServicer):
    """The service that `image-preprocessor` is called for."""

    def Normalize(self, request: EncodedImage, context: grpc.ServicerContext) -> Pixels:
        """Decode and scale one image."""
        try:
            pixels = normalize(request.data)
        except ValueError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        return Pixels(values=pixels.ravel(), side=SIDE)


class ImageClassification(user_defined_protos_pb2_grpc.ImageClassificationServiceServicer):
    """The service that `image-classifier` is called for."""

    def __init__(self, gateway: grpc.Channel, token: str) -> None:
        self._preprocessing = preprocessing_pb2_grpc.PreprocessingStub(gateway)
        self._token = token
        self._network = Network()

    def Predict(self, request: ImageData, context: grpc.ServicerContext) -> ImageClass:
        """Answer with the likeliest classes of the image in a `data:` URL, or with the other deployment's status."""
        try:
            image = decode_url(request.url)
        except ValueError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        try:
            pixels = self._preprocessing.Normalize(
                EncodedImage(data=image),
                metadata=self._metadata(context),
                timeout=min(context.time_remaining(), PREPROCESSING_S),
            )
        except grpc.RpcError as error:
            context.abort(error.code(), f"{PREPROCESSOR}: {error.details()}")
        classes, probabilities = self._network.classify(np.array(pixels.values, dtype=np.float32))
        return ImageClass(classes=classes, probabilities=probabilities)

    def _metadata(self, context: grpc.ServicerContext) -> list[tuple[str, str]]:
        """The metadata for the other deployment; it keeps the request id, so that both calls are found under one."""
        given = [(key, value) for key, value in context.invocation_metadata() if key == "request_id"]
        return [("application", PREPROCESSOR), ("authorization", f"Bearer {self._token}"), *given]


if __name__ == "__main__":
    channel = grpc.insecure_channel(os.environ["GRPC_GATEWAY"], options=OPTIONS)
    classification = ImageClassification(channel, os.environ.get("GATEWAY_TOKEN", ""))
    add_classification = user_defined_protos_pb2_grpc.add_ImageClassificationServiceServicer_to_server
    add_preprocessing = preprocessing_pb2_grpc.add_PreprocessingServicer_to_server
    serve(
        PORT,
        {
            "userdefinedprotos.ImageClassificationService": lambda server: add_classification(classification, server),
            "imageexample.Preprocessing": lambda server: add_preprocessing(Preprocessing(), server),
        },
    )
