"""The sequence that an inference request of KServe v2 belongs to: a stateful model keeps its state in one replica."""

from grpc_gateway.methods import KSERVE
from kit.protobuf import peek, peek_each

_METHODS = (f"{KSERVE}ModelInfer", f"{KSERVE}ModelStreamInfer")
_PARAMETERS = 4
"""Of a ModelInferRequest: a map, so each entry is a message of key = 1 and value = 2."""
_INT64, _STRING, _UINT64 = (2, 2), (2, 3), (2, 5)
"""The values that a sequence's id may be, within an entry."""


def sequence_of(path: str, message: bytes) -> str:
    """The request's `sequence_id`; empty if it has none, or 0, which means none."""
    if path not in _METHODS:
        return ""
    for entry in peek_each(message, _PARAMETERS):
        if peek(entry, (1,)) == b"sequence_id":
            number = peek(entry, _INT64) or peek(entry, _UINT64)
            text = peek(entry, _STRING)
            return str(number) if number else text.decode(errors="replace") if isinstance(text, bytes) else ""
    return ""
