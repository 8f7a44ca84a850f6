"""Calls to a replica's container: whether it is ready, and the tasks it runs. The only module of this package on gRPC.

Messages are written and read field by field, so a consumer needs no code generated from the models' protocols.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto

import grpc

from contract.serving import ServingSpec, WireProtocol
from kit.protobuf import MalformedMessage, bytes_field, fields, text_field

RUN_TASK = "/inferenceserver.Tasks/Run"
HEALTH_CHECK = "/grpc.health.v1.Health/Check"
SERVER_READY = "/inference.GRPCInferenceService/ServerReady"
MODEL_STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
SERVING = 1
LIST_APPLICATIONS = "/ray.serve.RayServeAPIService/ListApplications"
AVAILABLE = 30

_OPTIONS = (
    # Containers are on our own network, whatever proxy the environment names.
    ("grpc.enable_http_proxy", 0),
    # Otherwise a channel inherits the growing pauses of an earlier channel to the same address.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", 4 * 1024**2),
)


def why_not_ready(address: str, serving: ServingSpec, models: list[str], timeout_s: float) -> str | None:
    """None once the container at `address` says in its protocol that it is ready; otherwise what it says instead.

    `models` are the names that a TensorFlow server must have loaded.
    """
    if serving.readiness == "tcp":
        return _why_no_connection(address, timeout_s)
    try:
        with _channel(address) as channel:
            return _ask(channel, serving, models, timeout_s)
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"
    except MalformedMessage as error:
        return f"its answer cannot be read: {error}"


class CallFault(Enum):
    """Why a call failed, and whether the model is to blame."""

    UNREACHABLE = auto()
    """The container is gone or cannot be reached."""
    TIME_LIMIT = auto()
    REFUSED = auto()
    """The model's own code failed, or does not serve the call."""


class CallFailed(Exception):
    """A task's call ended without a reply. `detail` may be the container's; `code`, the status's name, is not."""

    def __init__(self, fault: CallFault, code: str, detail: str) -> None:
        self.fault = fault
        self.code = code
        super().__init__(detail)


@dataclass(frozen=True)
class TaskReply:
    """How the container says that the task ended."""

    exit_code: int
    detail: str


class TaskCall:
    """One `inferenceserver.Tasks/Run` under way. Leaving the block cancels it unless it has ended.

    Paths are the container's; no `progress_file` is given to one of a release before this one.
    """

    def __init__(
        self, address: str, uid: str, input_dir: str, output_dir: str, progress_file: str = "", *, time_limit_s: float
    ) -> None:
        self._channel = grpc.insecure_channel(address, _OPTIONS)
        values = enumerate((uid, input_dir, output_dir, progress_file), start=1)
        request = b"".join(text_field(number, value) for number, value in values if value)
        run: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(RUN_TASK)
        self._call = run.future(request, timeout=time_limit_s)

    def wait(self, timeout_s: float) -> TaskReply | None:
        """The reply, or None if none came in time. Raises `CallFailed`."""
        try:
            reply = self._call.result(timeout_s)
        except grpc.FutureTimeoutError:
            return None
        except grpc.FutureCancelledError as error:
            raise CallFailed(CallFault.UNREACHABLE, grpc.StatusCode.CANCELLED.name, "the call was cancelled") from error
        except grpc.RpcError as error:
            code = error.code()
            raise CallFailed(_fault(code), code.name, f"{code.name}: {error.details()}") from error
        try:
            return TaskReply(_signed(_number(reply, 1)), _text(reply, 2))
        except MalformedMessage as error:
            raise CallFailed(
                CallFault.REFUSED, grpc.StatusCode.OK.name, f"the reply cannot be read: {error}"
            ) from error

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


def _ask(channel: grpc.Channel, serving: ServingSpec, models: list[str], timeout_s: float) -> str | None:
    match serving.protocol:
        case WireProtocol.KSERVE:
            ready = _number(_call(channel, SERVER_READY, b"", timeout_s), 1)
            return None if ready == 1 else "ServerReady answers false"
        case WireProtocol.TENSORFLOW:
            return _why_not_available(channel, models, timeout_s)
        case WireProtocol.RAY:
            return _why_not_listed(channel, serving.applications, timeout_s)
        case WireProtocol.GRPC | WireProtocol.REDHARE:
            return _why_not_serving(channel, timeout_s)


def _why_not_available(channel: grpc.Channel, models: list[str], timeout_s: float) -> str | None:
    for model in models:
        try:
            reply = _call(channel, MODEL_STATUS, bytes_field(1, text_field(1, model)), timeout_s)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            return (
                f"NOT_FOUND: {error.details()}. If the container calls its model otherwise, name that in model_names "
                "or unrouted_model_names"
            )
        versions = [version for number, version in fields(reply) if number == 1]
        states = [_number(version, 2) for version in versions if isinstance(version, bytes)]
        if AVAILABLE not in states:
            return f"no version of the model {model} is available; GetModelStatus answers with the states {states}"
    return None


def _why_not_listed(channel: grpc.Channel, applications: list[str], timeout_s: float) -> str | None:
    """Ray Serve lists an application once it routes calls to it; until then it may refuse the question."""
    reply = _call(channel, LIST_APPLICATIONS, b"", timeout_s)
    names = [value.decode(errors="replace") for _, value in fields(reply) if isinstance(value, bytes)]
    missing = [name for name in applications if name not in names]
    if missing or not names:
        return f"ListApplications names {', '.join(names) or 'none'}; missing: {', '.join(missing) or 'any'}"
    return None


def _why_not_serving(channel: grpc.Channel, timeout_s: float) -> str | None:
    try:
        status = _number(_call(channel, HEALTH_CHECK, b"", timeout_s), 1)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            # It answers, and does not serve the health service.
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


def _number(message: bytes, number: int) -> int:
    """A number field; 0 if it is left out, as protobuf means it. Raises `MalformedMessage`."""
    value = _last(message, number)
    return value if isinstance(value, int) else 0


def _text(message: bytes, number: int) -> str:
    value = _last(message, number)
    return value.decode(errors="replace") if isinstance(value, bytes) else ""


def _last(message: bytes, number: int) -> int | bytes | None:
    """The last value of a field, which is the one that counts when it is repeated."""
    values = [value for field, value in fields(message) if field == number]
    return values[-1] if values else None


def _signed(value: int) -> int:
    """The int32 behind a varint: negative numbers are written as 64 bits."""
    value &= 0xFFFF_FFFF
    return value - (1 << 32) if value >= 1 << 31 else value
