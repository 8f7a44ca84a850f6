"""Which requests are part of a sequence, against messages that the library writes."""

from typing import Any

import pytest

from grpc_gateway.generated.kserve_pb2 import InferParameter, ModelInferRequest
from grpc_gateway.sequences import sequence_of

INFER = "/inference.GRPCInferenceService/ModelInfer"


def request(**parameters: Any) -> bytes:
    made = ModelInferRequest(model_name="m", id="7", raw_input_contents=[b"\x22\x04data"])
    for name, value in parameters.items():
        made.parameters[name].CopyFrom(InferParameter(**value))
    return made.SerializeToString()


@pytest.mark.parametrize(
    ("message", "sequence"),
    [
        (request(sequence_id={"int64_param": 42}), "42"),
        (request(sequence_id={"uint64_param": 2**63}), str(2**63)),
        (request(sequence_id={"string_param": "patient"}), "patient"),
        (request(a={"bool_param": True}, sequence_id={"int64_param": 5}, z={"string_param": "x"}), "5"),
        # 0 and "" mean that a request is part of none, as in Triton.
        (request(sequence_id={"int64_param": 0}), ""),
        (request(sequence_id={"string_param": ""}), ""),
        (request(priority={"int64_param": 42}), ""),
        (request(), ""),
        (b"", ""),
        (b"\x22\xff", ""),
    ],
    # Maps are serialized in any order.
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_request_names_its_sequence_in_a_parameter(message: bytes, sequence: str) -> None:
    assert sequence_of(INFER, message) == sequence


def test_only_inference_is_part_of_a_sequence() -> None:
    message = request(sequence_id={"int64_param": 42})
    assert sequence_of("/inference.GRPCInferenceService/ModelStreamInfer", message) == "42"
    assert sequence_of("/inference.GRPCInferenceService/ModelConfig", message) == ""
    assert sequence_of("/user.Own/ModelInfer", message) == ""
