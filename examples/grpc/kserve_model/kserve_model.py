"""A server of the KServe v2 protocol as Triton speaks it: unary and streamed inference, decoupled models, counts."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator

import grpc
import numpy as np
from models import MODELS, Model, Refused, encode, read_inputs
from server import serve
from tritonclient.grpc import model_config_pb2, service_pb2_grpc
from tritonclient.grpc import service_pb2 as messages

PORT = 8001
VERSION = "1"


class InferenceService(service_pb2_grpc.GRPCInferenceServiceServicer):
    """All of `inference.GRPCInferenceService`, except what changes a server, which stays UNIMPLEMENTED."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, messages.ModelStatistics] = defaultdict(messages.ModelStatistics)

    def ServerLive(self, request, context):
        """Answer true: a server that answers is live."""
        return messages.ServerLiveResponse(live=True)

    def ServerReady(self, request, context):
        """Answer true: there is nothing to load."""
        return messages.ServerReadyResponse(ready=True)

    def ModelReady(self, request, context):
        """Answer false, not an error, for an unknown model."""
        return messages.ModelReadyResponse(ready=request.name in MODELS and request.version in ("", VERSION))

    def ServerMetadata(self, request, context):
        """Describe this server."""
        return messages.ServerMetadataResponse(
            name="kserve-example", version="1.0", extensions=["model_repository", "statistics", "binary_tensor_data"]
        )

    def ModelMetadata(self, request, context):
        """Describe the model's tensors: names, types and shapes."""
        model = _find(request.name, request.version, context)
        response = messages.ModelMetadataResponse(name=model.name, versions=[VERSION], platform="python")
        for ours, told in ((model.inputs, response.inputs), (model.outputs, response.outputs)):
            for tensor in ours:
                told.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        return response

    def ModelConfig(self, request, context):
        """Describe the model as a configuration of Triton's."""
        model = _find(request.name, request.version, context)
        config = model_config_pb2.ModelConfig(name=model.name, backend="python", max_batch_size=0)
        config.model_transaction_policy.decoupled = model.decoupled
        for tensor in model.inputs:
            config.input.add(name=tensor.name, data_type=_config_type(tensor.datatype), dims=tensor.shape)
        for tensor in model.outputs:
            config.output.add(name=tensor.name, data_type=_config_type(tensor.datatype), dims=tensor.shape)
        return messages.ModelConfigResponse(config=config)

    def ModelStatistics(self, request, context):
        """Report the counts since the start, of all models if none is named."""
        names = [_find(request.name, request.version, context).name] if request.name else sorted(MODELS)
        response = messages.ModelStatisticsResponse()
        with self._lock:
            for name in names:
                told = response.model_stats.add()
                told.CopyFrom(self._counts[name])
                told.name, told.version = name, VERSION
        return response

    def RepositoryIndex(self, request, context):
        """List the models; all of them are ready."""
        response = messages.RepositoryIndexResponse()
        for name in sorted(MODELS):
            response.models.add(name=name, version=VERSION, state="READY")
        return response

    def ModelInfer(self, request, context):
        """Answer once. A decoupled model is refused: it needs a stream."""
        try:
            model = _resolve(request.model_name, request.model_version)
            if model.decoupled:
                raise Refused(
                    grpc.StatusCode.UNIMPLEMENTED,
                    "ModelInfer RPC doesn't support models with decoupled transaction policy",
                )
            (response,) = self._infer(model, request)
        except Refused as refused:
            context.abort(refused.code, str(refused))
        return response

    def ModelStreamInfer(self, request_iterator, context) -> Iterator[messages.ModelStreamInferResponse]:
        """Answer in the order of the requests; a bad one gets an error within the stream, which stays open.

        With the metadata `triton_grpc_error: true` the first bad request ends the stream with its status instead.
        """
        strict = dict(context.invocation_metadata()).get("triton_grpc_error") == "true"
        for request in request_iterator:
            try:
                yield from self._stream_one(request)
            except Refused as refused:
                if strict:
                    context.abort(refused.code, str(refused))
                yield messages.ModelStreamInferResponse(
                    error_message=str(refused), infer_response=messages.ModelInferResponse(id=request.id)
                )

    def _stream_one(self, request: messages.ModelInferRequest) -> Iterator[messages.ModelStreamInferResponse]:
        model = _resolve(request.model_name, request.model_version)
        for response in self._infer(model, request):
            response.parameters["triton_final_response"].bool_param = not model.decoupled
            yield messages.ModelStreamInferResponse(infer_response=response)
        if model.decoupled and request.parameters["triton_enable_empty_final_response"].bool_param:
            last = messages.ModelInferResponse(model_name=model.name, model_version=VERSION, id=request.id)
            last.parameters["triton_final_response"].bool_param = True
            yield messages.ModelStreamInferResponse(infer_response=last)

    def _infer(self, model: Model, request: messages.ModelInferRequest) -> Iterator[messages.ModelInferResponse]:
        """Yield the model's answers to one request, and count them."""
        started = time.monotonic_ns()
        succeeded = False
        try:
            wanted = _requested(model, request)
            for outputs in model.run(read_inputs(model, request)):
                yield _response(model, request, {name: outputs[name] for name in wanted})
            succeeded = True
        finally:
            self._count(model, succeeded, time.monotonic_ns() - started)

    def _count(self, model: Model, succeeded: bool, nanoseconds: int) -> None:
        with self._lock:
            counts = self._counts[model.name]
            told = counts.inference_stats.success if succeeded else counts.inference_stats.fail
            told.count += 1
            told.ns += nanoseconds
            if succeeded:
                stats = counts.inference_stats
                # perf_analyzer sees by `queue` which version was called. Nothing queues here.
                for step in (stats.queue, stats.compute_input, stats.compute_infer, stats.compute_output):
                    step.count += 1
                stats.compute_infer.ns += nanoseconds
                counts.inference_count += 1
                counts.execution_count += 1
                counts.last_inference = int(time.time() * 1000)


def _requested(model: Model, request: messages.ModelInferRequest) -> list[str]:
    known = [tensor.name for tensor in model.outputs]
    wanted = [tensor.name for tensor in request.outputs] or known
    for name in wanted:
        if name not in known:
            raise Refused(
                grpc.StatusCode.INVALID_ARGUMENT, f"unexpected inference output '{name}' for model '{model.name}'"
            )
    return wanted


def _response(
    model: Model, request: messages.ModelInferRequest, outputs: dict[str, np.ndarray]
) -> messages.ModelInferResponse:
    response = messages.ModelInferResponse(model_name=model.name, model_version=VERSION, id=request.id)
    types = {tensor.name: tensor.datatype for tensor in model.outputs}
    for name, array in outputs.items():
        response.outputs.add(name=name, datatype=types[name], shape=array.shape)
        response.raw_output_contents.append(encode(array))
    return response


def _find(name: str, version: str, context: grpc.ServicerContext) -> Model:
    try:
        return _resolve(name, version)
    except Refused as refused:
        context.abort(refused.code, str(refused))
        raise


def _resolve(name: str, version: str) -> Model:
    """The model with this name. Raises `Refused`."""
    if name not in MODELS:
        raise Refused(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{name}' is not found")
    if version not in ("", VERSION):
        raise Refused(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{name}' version {version} is not found")
    return MODELS[name]


def _config_type(datatype: str) -> int:
    return model_config_pb2.DataType.Value("TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}")


if __name__ == "__main__":
    service = InferenceService()
    serve(
        PORT,
        {
            "inference.GRPCInferenceService": lambda server: (
                service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(service, server)
            )
        },
    )
