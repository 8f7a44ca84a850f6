"""What TensorFlow Serving makes of a model spec: which servable is meant, and the texts of its refusals."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from server import serve
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
)

PORT = 8500


@dataclass(frozen=True)
class Servable:
    """A model's versions that can be called."""

    versions: tuple[int, ...]
    """In ascending order; the last is taken if none is asked for."""
    labels: Mapping[str, int] = field(default_factory=dict)


Servables = Mapping[str, Servable]
"""By the name of the model."""


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """Reports which models there are."""

    def __init__(self, servables: Servables) -> None:
        self._servables = servables

    def GetModelStatus(
        self, request: get_model_status_pb2.GetModelStatusRequest, context: grpc.ServicerContext
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Report the state of each version, newest first, or of the one that is asked for."""
        spec = request.model_spec
        if not request.HasField("model_spec"):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Missing ModelSpec")
        if spec.name not in self._servables:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Could not find any versions of model {spec.name}")
        versions = self._servables[spec.name].versions
        if spec.HasField("version"):
            if spec.version.value not in versions:
                context.abort(
                    grpc.StatusCode.NOT_FOUND, f"Could not find version {spec.version.value} of model {spec.name}"
                )
            versions = (spec.version.value,)
        response = get_model_status_pb2.GetModelStatusResponse()
        for version in reversed(versions):
            response.model_version_status.add(version=version, state="AVAILABLE").status.error_message = ""
        return response


def serve_models(predictions: prediction_service_pb2_grpc.PredictionServiceServicer, servables: Servables) -> None:
    """Serve both of TensorFlow Serving's services until TERM."""
    models = ModelService(servables)
    serve(
        PORT,
        {
            "tensorflow.serving.PredictionService": lambda server: (
                prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(predictions, server)
            ),
            "tensorflow.serving.ModelService": lambda server: model_service_pb2_grpc.add_ModelServiceServicer_to_server(
                models, server
            ),
        },
    )


def resolve(
    spec: model_pb2.ModelSpec, given: bool, servables: Servables, context: grpc.ServicerContext
) -> model_pb2.ModelSpec:
    """The model spec, completed with version and signature, as responses echo it."""
    if not given:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Missing ModelSpec")
    if not spec.name:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "ModelSpec has no name specified.")
    servable = servables.get(spec.name, Servable(()))
    wanted = spec.version.value if spec.HasField("version") else None
    if spec.WhichOneof("version_choice") == "version_label":
        wanted = servable.labels.get(spec.version_label)
        if wanted is None:
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"Unrecognized servable version label: {spec.version_label}"
            )
    if not servable.versions or wanted not in (None, *servable.versions):
        request = f"Latest({spec.name})" if wanted is None else f"Specific({spec.name}, {wanted})"
        context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {request}")
    resolved = model_pb2.ModelSpec(name=spec.name, signature_name=spec.signature_name or "serving_default")
    resolved.version.value = servable.versions[-1] if wanted is None else wanted
    return resolved


def find_signature(spec: model_pb2.ModelSpec, signatures: Mapping[str, Any], context: grpc.ServicerContext) -> Any:
    """The SignatureDef that a resolved spec names."""
    if spec.signature_name not in signatures:
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{spec.signature_name}" not found.')
    return signatures[spec.signature_name]


def check_names(
    sent: set[str], expected: set[str], wanted: Iterable[str], outputs: Iterable[str], context: grpc.ServicerContext
) -> None:
    """Refuse inputs other than the signature's, and a filter for outputs that it has not."""
    if sent != expected:
        context.abort(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"input size does not match signature: {len(sent)}!={len(expected)} len({_set(sent)}) != "
            f"len({_set(expected)}). Sent extra: {_set(sent - expected)}. "
            f"Missing but required: {_set(expected - sent)}.",
        )
    if unknown := sorted(set(wanted) - set(outputs)):
        context.abort(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"output tensor alias not found in signature: {unknown[0]} Outputs expected to be in the set "
            f"{{{','.join(outputs)}}}.",
        )


def describe(
    spec: model_pb2.ModelSpec, fields: Iterable[str], signatures: Mapping[str, Any], context: grpc.ServicerContext
) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """The answer of GetModelMetadata for a resolved spec."""
    if not fields:
        context.abort(
            grpc.StatusCode.INVALID_ARGUMENT, "GetModelMetadataRequest must specify at least one metadata_field"
        )
    for name in fields:
        if name != "signature_def":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"Metadata field {name} is not supported")
    packed = AnyMessage()
    packed.Pack(get_model_metadata_pb2.SignatureDefMap(signature_def=signatures))
    spec.ClearField("signature_name")
    return get_model_metadata_pb2.GetModelMetadataResponse(model_spec=spec, metadata={"signature_def": packed})


def _set(names: set[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"
