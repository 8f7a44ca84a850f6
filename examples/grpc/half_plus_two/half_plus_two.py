"""The model `half_plus_two` (y = x / 2 + 2) as TensorFlow Serving serves it: the same calls, rules and error texts."""

import os

import grpc
import numpy as np
from google.protobuf.any_pb2 import Any as AnyMessage
from server import serve
from signatures import SIGNATURES, BadTensor, decode_tensor, encode_tensor
from tensorflow.core.example.example_pb2 import Example
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    input_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

PORT = 8500
VERSION = 1
LABELS = {"stable": VERSION}
NAMES = frozenset({"half_plus_two", "model", os.environ.get("DEPLOYMENT", "half_plus_two")})
"""TensorFlow Serving gets its model's name at its start; this server answers to all of these."""


def half_plus_two(x: np.ndarray) -> np.ndarray:
    """Compute the model: y = x / 2 + 2."""
    return x / 2 + 2


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answers predictions, and describes what they take."""

    def Predict(
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        """Compute named tensors from named tensors."""
        spec = resolve(request.model_spec, request.HasField("model_spec"), context)
        signature = find_signature(spec, context)
        check_names(set(request.inputs), set(signature.inputs), context)
        if unknown := sorted(set(request.output_filter) - set(signature.outputs)):
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"output tensor alias not found in signature: {unknown[0]} Outputs expected to be in the set "
                f"{{{','.join(signature.outputs)}}}.",
            )
        (input_name,), (output_name,) = signature.inputs, signature.outputs
        try:
            x = decode_tensor(request.inputs[input_name])
        except BadTensor as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        return predict_pb2.PredictResponse(model_spec=spec, outputs={output_name: encode_tensor(half_plus_two(x))})

    def GetModelMetadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, context: grpc.ServicerContext
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Describe the model's signatures."""
        spec = resolve(request.model_spec, request.HasField("model_spec"), context)
        if not request.metadata_field:
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, "GetModelMetadataRequest must specify at least one metadata_field"
            )
        for field in request.metadata_field:
            if field != "signature_def":
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"Metadata field {field} is not supported")
        packed = AnyMessage()
        packed.Pack(get_model_metadata_pb2.SignatureDefMap(signature_def=SIGNATURES))
        spec.ClearField("signature_name")
        return get_model_metadata_pb2.GetModelMetadataResponse(model_spec=spec, metadata={"signature_def": packed})

    def Classify(
        self, request: classification_pb2.ClassificationRequest, context: grpc.ServicerContext
    ) -> classification_pb2.ClassificationResponse:
        """Compute one score for each example."""
        spec = resolve(request.model_spec, request.HasField("model_spec"), context)
        return classification_pb2.ClassificationResponse(
            model_spec=spec, result=classify(read_examples(request.input, spec, "classify", context))
        )

    def Regress(
        self, request: regression_pb2.RegressionRequest, context: grpc.ServicerContext
    ) -> regression_pb2.RegressionResponse:
        """Compute one value for each example."""
        spec = resolve(request.model_spec, request.HasField("model_spec"), context)
        return regression_pb2.RegressionResponse(
            model_spec=spec, result=regress(read_examples(request.input, spec, "regress", context))
        )

    def MultiInference(
        self, request: inference_pb2.MultiInferenceRequest, context: grpc.ServicerContext
    ) -> inference_pb2.MultiInferenceResponse:
        """Classify and regress the same examples; all tasks must be for one model."""
        if not request.tasks:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Inference request must not be empty.")
        if len({task.model_spec.name for task in request.tasks}) > 1:
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
            )
        response = inference_pb2.MultiInferenceResponse()
        for task in request.tasks:
            spec = resolve(task.model_spec, task.HasField("model_spec"), context)
            kind = task.method_name.removeprefix("tensorflow/serving/")
            if kind not in ("classify", "regress"):
                context.abort(grpc.StatusCode.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}")
            examples = read_examples(request.input, spec, kind, context)
            result = response.results.add(model_spec=spec)
            if kind == "classify":
                result.classification_result.CopyFrom(classify(examples))
            else:
                result.regression_result.CopyFrom(regress(examples))
        return response


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """Reports which models there are."""

    def GetModelStatus(
        self, request: get_model_status_pb2.GetModelStatusRequest, context: grpc.ServicerContext
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Report the state of each version."""
        spec = request.model_spec
        if not request.HasField("model_spec"):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Missing ModelSpec")
        if spec.name not in NAMES:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Could not find any versions of model {spec.name}")
        if spec.HasField("version") and spec.version.value != VERSION:
            context.abort(
                grpc.StatusCode.NOT_FOUND, f"Could not find version {spec.version.value} of model {spec.name}"
            )
        response = get_model_status_pb2.GetModelStatusResponse()
        version = response.model_version_status.add(version=VERSION, state="AVAILABLE")
        version.status.error_message = ""
        return response


def resolve(spec: model_pb2.ModelSpec, given: bool, context: grpc.ServicerContext) -> model_pb2.ModelSpec:
    """The model spec, completed with version and signature, as responses echo it."""
    if not given:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Missing ModelSpec")
    if not spec.name:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "ModelSpec has no name specified.")
    wanted = spec.version.value if spec.HasField("version") else None
    if spec.WhichOneof("version_choice") == "version_label":
        wanted = LABELS.get(spec.version_label)
        if wanted is None:
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"Unrecognized servable version label: {spec.version_label}"
            )
    if spec.name not in NAMES or wanted not in (None, VERSION):
        request = f"Latest({spec.name})" if wanted is None else f"Specific({spec.name}, {wanted})"
        context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {request}")
    resolved = model_pb2.ModelSpec(name=spec.name, signature_name=spec.signature_name or "serving_default")
    resolved.version.value = VERSION
    return resolved


def find_signature(spec: model_pb2.ModelSpec, context: grpc.ServicerContext):
    """The signature that the spec names."""
    if spec.signature_name not in SIGNATURES:
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{spec.signature_name}" not found.')
    return SIGNATURES[spec.signature_name]


def check_names(sent: set[str], expected: set[str], context: grpc.ServicerContext) -> None:
    """Refuse inputs other than the signature's."""
    if sent != expected:
        context.abort(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"input size does not match signature: {len(sent)}!={len(expected)} len({_set(sent)}) != "
            f"len({_set(expected)}). Sent extra: {_set(sent - expected)}. "
            f"Missing but required: {_set(expected - sent)}.",
        )


def _set(names: set[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"


def read_examples(
    given: input_pb2.Input, spec: model_pb2.ModelSpec, kind: str, context: grpc.ServicerContext
) -> np.ndarray:
    """The model's value for the feature `x` of each example. The signature must be of this kind."""
    signature = find_signature(spec, context)
    if signature.method_name != f"tensorflow/serving/{kind}":
        context.abort(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"Expected {kind} signature method_name to be tensorflow/serving/{kind}. Was: {signature.method_name}",
        )
    examples = list(given.example_list.examples) or list(given.example_list_with_context.examples)
    if not examples:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Input is empty.")
    return half_plus_two(np.array([_feature(example, context) for example in examples], dtype=np.float32))


def _feature(example: Example, context: grpc.ServicerContext) -> float:
    values = example.features.feature["x"].float_list.value if "x" in example.features.feature else ()
    if len(values) != 1:
        context.abort(
            grpc.StatusCode.INVALID_ARGUMENT, "Feature: x (data type: float) is required but could not be found."
        )
    return values[0]


def classify(scores: np.ndarray) -> classification_pb2.ClassificationResult:
    """One class for each score, without a label."""
    result = classification_pb2.ClassificationResult()
    for score in scores:
        result.classifications.add().classes.add(score=float(score))
    return result


def regress(values: np.ndarray) -> regression_pb2.RegressionResult:
    """The result with one value for each score."""
    return regression_pb2.RegressionResult(
        regressions=[regression_pb2.Regression(value=float(value)) for value in values]
    )


if __name__ == "__main__":
    predictions, models = PredictionService(), ModelService()
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
