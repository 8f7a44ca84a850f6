"""What a server of TensorFlow's protocol refuses, one line each: the code and the text."""

import os

import grpc
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.framework.tensor_shape_pb2 import TensorShapeProto
from tensorflow.core.framework.types_pb2 import DT_FLOAT, DT_INT32
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2, prediction_service_pb2_grpc

ONE = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
X = TensorProto(dtype=DT_FLOAT, tensor_shape=ONE, float_val=[1.0])

stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(os.environ["GRPC_TARGET"]))


def show(method, request):
    """Call, and print how it fails."""
    try:
        print(method(request, timeout=60))
    except grpc.RpcError as error:
        print(error.code().name, error.details())


def predict(name="half_plus_two", signature="", version=None, **inputs):
    """Ask for a prediction that is refused."""
    request = predict_pb2.PredictRequest(inputs=inputs)
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    show(stub.Predict, request)


show(stub.Predict, predict_pb2.PredictRequest())
predict(name="", x=X)
predict(version=7, x=X)
predict(signature="other", x=X)
predict(z=X)
predict(x=TensorProto(dtype=DT_INT32, tensor_shape=ONE, int_val=[1]))
huge = TensorShapeProto(dim=[TensorShapeProto.Dim(size=2**40)])
predict(x=TensorProto(dtype=DT_FLOAT, tensor_shape=huge, float_val=[1.0]))
predict(x=TensorProto(dtype=DT_FLOAT, tensor_shape=ONE, tensor_content=b"\0\0"))
metadata = get_model_metadata_pb2.GetModelMetadataRequest()
metadata.model_spec.name = "half_plus_two"
show(stub.GetModelMetadata, metadata)
