"""The model `half_plus_two` (y = x / 2 + 2) as TensorFlow Serving serves it: the same calls, rules and error texts."""

import os

import grpc
import numpy as np
from serving_rules import Servable, check_names, describe, find_signature, resolve, serve_models
from signatures import SIGNATURES, BadTensor, decode_tensor, encode_tensor
from tensorflow.core.example.example_pb2 import Example
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    inference_pb2,
    input_pb2,
    model_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

NAMES = ("half_plus_two", "model", os.environ.get("DEPLOYMENT", "half_plus_two"))
"""TensorFlow Serving gets its model's name at its start; this server answers to all of these."""
SERVABLES = dict.fromkeys(NAMES, Servable((1,), {"stable": 1}))


def half_plus_two(x: np.ndarray) -> np.ndarray:
    """Compute the model: y = x / 2 + 2."""
    return x / 2 + 2


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answers predictions, and describes what they take."""

    def Predict(
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        """Compute named tensors from named tensors."""
        spec = resolve(request.model_spec, request.HasField("model_spec"), SERVABLES, context)
        signature = find_signature(spec, SIGNATURES, context)
        check_names(set(request.inputs), set(signature.inputs), request.output_filter, signature.outputs, context)
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
        spec = resolve(request.model_spec, request.HasField("model_spec"), SERVABLES, context)
        return describe(spec, request.metadata_field, SIGNATURES, context)

    def Classify(
        self, request: classification_pb2.ClassificationRequest, context: grpc.ServicerContext
    ) -> classification_pb2.ClassificationResponse:
        """Compute one score for each example."""
        spec = resolve(request.model_spec, request.HasField("model_spec"), SERVABLES, context)
        return classification_pb2.ClassificationResponse(
            model_spec=spec, result=classify(read_examples(request.input, spec, "classify", context))
        )

    def Regress(
        self, request: regression_pb2.RegressionRequest, context: grpc.ServicerContext
    ) -> regression_pb2.RegressionResponse:
        """Compute one value for each example."""
        spec = resolve(request.model_spec, request.HasField("model_spec"), SERVABLES, context)
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
            spec = resolve(task.model_spec, task.HasField("model_spec"), SERVABLES, context)
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


def read_examples(
    given: input_pb2.Input, spec: model_pb2.ModelSpec, kind: str, context: grpc.ServicerContext
) -> np.ndarray:
    """The model's value for the feature `x` of each example. The signature must be of this kind."""
    signature = find_signature(spec, SIGNATURES, context)
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
    serve_models(PredictionService(), SERVABLES)
