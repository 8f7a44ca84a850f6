"""Serves SavedModels as TensorFlow Serving does, with TensorFlow: `Predict`, `GetModelMetadata`, `GetModelStatus`.

They lie in `/model/<name>/<version>/`; without any there, it serves the one that was made with the image.
"""

import os
from pathlib import Path

import grpc
from saved_models import BadTensor, LoadedModel, load_models, servables_of
from serving_rules import check_names, describe, find_signature, resolve, serve_models
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    model_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

GIVEN = Path(os.environ.get("MODEL_DIR", "/model"))
MADE = Path("/opt/models")


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answers predictions, and describes what they take."""

    def __init__(self, models: dict[str, dict[int, LoadedModel]]) -> None:
        self._models = models
        self._servables = servables_of(models)

    def Predict(
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        """Compute named tensors from named tensors."""
        spec = resolve(request.model_spec, request.HasField("model_spec"), self._servables, context)
        model = self._model(spec)
        signature = find_signature(spec, model.signatures, context)
        check_names(set(request.inputs), set(signature.inputs), request.output_filter, signature.outputs, context)
        try:
            outputs = model.predict(spec.signature_name, dict(request.inputs))
        except BadTensor as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        wanted = request.output_filter or outputs
        return predict_pb2.PredictResponse(model_spec=spec, outputs={name: outputs[name] for name in wanted})

    def GetModelMetadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, context: grpc.ServicerContext
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Describe the model's signatures."""
        spec = resolve(request.model_spec, request.HasField("model_spec"), self._servables, context)
        return describe(spec, request.metadata_field, self._model(spec).signatures, context)

    def _model(self, spec: model_pb2.ModelSpec) -> LoadedModel:
        return self._models[spec.name][spec.version.value]


if __name__ == "__main__":
    models = load_models(GIVEN if any(GIVEN.glob("*/*/saved_model.pb")) else MADE)
    serve_models(PredictionService(models), servables_of(models))
