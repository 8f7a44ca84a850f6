"""Calls to a replica's container: whether it is ready, and tasks that it runs. The only place here that knows gRPC.

Messages are written and read field by field: a consumer needs no code that is generated from somebody's protocol.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto

import grpc

from contract.serving import Serving, WireProtocol

RUN_TASK = "/inferenceserver.Tasks/Run"
HEALTH_CHECK = "/grpc.health.v1.Health/Check"
SERVER_READY = "/inference.GRPCInferenceService/ServerReady"
MODEL_STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
SERVING = 1
AVAILABLE = 30

_OPTIONS = (
    # Containers are on our own network, whatever proxy the environment names.
    ("grpc.enable_http_proxy", 0),
    # Else a channel inherits the growing pauses of an earlier one to the same address.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", 4 * 1024**2),
)
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def why_not_ready(address: str, serving: Serving, models: list[str], timeout_s: float) -> str | None:
    """None once the container at `address` says in its protocol that it is ready; else what it says instead.

    `models` are the names that a TensorFlow server must have loaded.
    """
    if serving.readiness == "tcp":
        return _why_no_connection(address, timeout_s)
    try:
        with _channel(address) as channel:
            match serving.protocol:
                case WireProtocol.KSERVE:
                    ready = _varint(_call(channel, SERVER_READY, b"", timeout_s), 1)
                    return None if ready == 1 else "ServerReady answers false"
                case WireProtocol.TENSORFLOW:
                    return _why_not_available(channel, models, timeout_s)
                case WireProtocol.GRPC | WireProtocol.REDHARE:
                    return _why_not_serving(channel, timeout_s)
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"
    except ValueError as error:
        return f"its answer cannot be read: {error}"


class CallFault(Enum):
    """What a failed call says."""

    UNREACHABLE = auto()
    """The container is gone or cannot be reached."""
    TIME_LIMIT = auto()
    REFUSED = auto()
    """The model's own code failed, or does not serve the call."""


class CallFailed(Exception):
    """A task's call ended without a reply."""

    def __init__(self, fault: CallFault, detail: str) -> None:
        self.fault = fault
        super().__init__(detail)


@dataclass(frozen=True)
class TaskReply:
    """How the container says that the task ended."""

    exit_code: int
    detail: str


class TaskCall:
    """One `inferenceserver.Tasks/Run` under way. Leaving the block cancels it unless it has ended."""

    def __init__(self, address: str, uid: str, input_dir: str, output_dir: str, *, time_limit_s: float) -> None:
        self._channel = grpc.insecure_channel(address, _OPTIONS)
        request = b"".join(_text(number, value) for number, value in enumerate((uid, input_dir, output_dir), start=1))
        run: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(RUN_TASK)
        self._call = run.future(request, timeout=time_limit_s)

    def wait(self, timeout_s: float) -> TaskReply | None:
        """The reply, or None where none came in time. Raises `CallFailed`."""
        try:
            reply = self._call.result(timeout_s)
        except grpc.FutureTimeoutError:
            return None
        except grpc.FutureCancelledError as error:
            raise CallFailed(CallFault.UNREACHABLE, "the call was cancelled") from error
        except grpc.RpcError as error:
            raise CallFailed(_fault(error.code()), f"{error.code().name}: {error.details()}") from error
        try:
            return TaskReply(_signed(_varint(reply, 1)), _string(reply, 2))
        except ValueError as error:
            raise CallFailed(CallFault.REFUSED, f"the reply cannot be read: {error}") from error

    def __enter__(self) -> "TaskCall":
        return self

    def __exit__(self, *_exc: object) -> None:
        self._call.cancel()
        self._channel.close()


def _fault(code: grpc.StatusCode) -> CallFault:
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return CallFault.UNREACHABLE
    return CallFault.TIME_LIMIT if code is grpc.StatusCode.DEADLINE_EXCEEDED else CallFault.REFUSED


def _why_no_connection(address: str, timeout_s: float) -> str | None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=timeout_s).close()
    except OSError as error:
        return f"nothing listens at {address}: {error}"
    return None


def _why_not_available(channel: grpc.Channel, models: list[str], timeout_s: float) -> str | None:
    for model in models:
        reply = _call(channel, MODEL_STATUS, _message(1, _text(1, model)), timeout_s)
        states = [_varint(_as_bytes(status), 2) for number, status in _fields(reply) if number == 1]
        if AVAILABLE not in states:
            return f"no version of the model {model} is available; GetModelStatus answers with the states {states}"
    return None


def _why_not_serving(channel: grpc.Channel, timeout_s: float) -> str | None:
    try:
        status = _varint(_call(channel, HEALTH_CHECK, b"", timeout_s), 1)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            # It answers, and has no word for its health.
            return None
        raise
    return None if status == SERVING else f"grpc.health.v1 answers with status {status}"


@contextmanager
def _channel(address: str) -> Iterator[grpc.Channel]:
    channel = grpc.insecure_channel(address, _OPTIONS)
    try:
        yield channel
    finally:
        channel.close()


def _call(channel: grpc.Channel, method: str, request: bytes, timeout_s: float) -> bytes:
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
    return call(request, timeout=timeout_s)


def _message(number: int, body: bytes) -> bytes:
    return _written_varint(number << 3 | _BYTES) + _written_varint(len(body)) + body


def _text(number: int, value: str) -> bytes:
    return _message(number, value.encode())


def _written_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _varint(message: bytes, number: int) -> int:
    """The last value of a number field; 0 where it is left out, as the protocol means it."""
    values = [value for field, value in _fields(message) if field == number]
    return values[-1] if values and isinstance(values[-1], int) else 0


def _string(message: bytes, number: int) -> str:
    values = [value for field, value in _fields(message) if field == number]
    return _as_bytes(values[-1]).decode(errors="replace") if values else ""


def _as_bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number stands where a message is expected")
    return value


def _signed(value: int) -> int:
    """An int32 as it was meant: negative ones are written as 64 bits."""
    value &= 0xFFFF_FFFF
    return value - (1 << 32) if value >= 1 << 31 else value


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field. Raises `ValueError` where the bytes are no message."""
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _read_varint(message, at)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            length, at = _read_varint(message, at)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"a field of the unknown kind {kind}")
        if at + length > len(message):
            raise ValueError("a field is cut off")
        yield tag >> 3, message[at : at + length]
        at += length


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise ValueError("a number is cut off")
        value |= (message[at] & 0x7F) << shift
        at += 1
        if message[at - 1] < 0x80:
            return value, at
        shift += 7
