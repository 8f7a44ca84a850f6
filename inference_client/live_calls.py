"""Live calls over gRPC without generated code: the server's reflection says what a method takes and returns.

The only module of the client that imports grpc and protobuf, which come with the extra `[grpc]`.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import DecodeError, Message
from grpc_reflection.v1alpha import reflection_pb2 as reflection

from inference_client.errors import CallFailed, UnusableInput
from inference_client.grpc_endpoint import GrpcEndpoint

REFLECTION_TIMEOUT_S = 30.0
_ADVICE = "Is a gRPC door there? Another address is named with --grpc or INFERENCE_SERVER_GRPC."
_REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
_OF_THE_SERVER = ("grpc.", "ray.serve.")
"""Services of the server itself, not of a model: a bare method name never means one of theirs."""

Metadata = Sequence[tuple[str, str | bytes]]


@dataclass(frozen=True)
class Method:
    """One method of a service, as the server's reflection describes it."""

    descriptor: MethodDescriptor
    pool: descriptor_pool.DescriptorPool

    @property
    def path(self) -> str:
        """The method's path in the form that gRPC calls."""
        return f"/{self.descriptor.containing_service.full_name}/{self.descriptor.name}"

    @property
    def takes_stream(self) -> bool:
        """Whether it takes a stream of requests rather than one."""
        return bool(self.descriptor.client_streaming)

    def parse(self, text: str, place: str) -> Message:
        """A request from JSON. Raises `UnusableInput`, which names the `place` of the text."""
        message = message_factory.GetMessageClass(self.descriptor.input_type)()
        try:
            return json_format.Parse(text, message, descriptor_pool=self.pool)
        except json_format.ParseError as error:
            raise UnusableInput(f"{place} is no {self.descriptor.input_type.full_name}: {error}") from error

    def format(self, message: Message) -> str:
        """A response as one line of JSON in ASCII, with field names as in the proto; plain fields show zeros too."""
        return json_format.MessageToJson(
            message,
            preserving_proto_field_name=True,
            always_print_fields_with_no_presence=True,
            indent=None,
            ensure_ascii=True,
            descriptor_pool=self.pool,
        )


class LiveCalls:
    """Calls to one endpoint with the same metadata. Raises `CallFailed` for every status other than OK."""

    def __init__(self, endpoint: GrpcEndpoint, *, metadata: Metadata, ca: Path | None) -> None:
        """Raises `UnusableInput` if the CA file cannot be used."""
        self._target = endpoint.target
        self._metadata = tuple(metadata)
        # As over HTTP, the server decides how large a message may be.
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        if endpoint.uses_tls:
            credentials = grpc.ssl_channel_credentials(_read_ca(ca))
            self._channel = grpc.secure_channel(endpoint.target, credentials, options)
        else:
            self._channel = grpc.insecure_channel(endpoint.target, options)

    def __enter__(self) -> "LiveCalls":
        return self

    def __exit__(self, *exception: object) -> None:
        self._channel.close()

    def wait_until_reached(self, timeout_s: float) -> None:
        """Return once the door answered, or refused the connection, which the next call then reports.

        Raises `CallFailed` if it did neither in time: gRPC itself would wait for 20 s.
        """
        settled = threading.Event()

        def note(state: grpc.ChannelConnectivity) -> None:
            if state in (grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE):
                settled.set()

        self._channel.subscribe(note, try_to_connect=True)
        try:
            if not settled.wait(timeout_s):
                raise CallFailed("UNAVAILABLE", f"{self._target} did not answer in time\n{_ADVICE}")
        finally:
            self._channel.unsubscribe(note)

    def find(self, name: str) -> Method:
        """The method `service/method`, or the only one called `method`. Raises `UnusableInput` if several are."""
        service_name, _, method_name = name.lstrip("/").rpartition("/")
        names = [service_name] if service_name else self._service_names()
        loaded = [self._load(each) for each in names]
        found = [
            Method(method, pool) for service, pool in loaded for method in service.methods if method.name == method_name
        ]
        if len(found) == 1:
            return found[0]
        if found:
            raise UnusableInput(f"several methods are called {method_name}: {', '.join(m.path[1:] for m in found)}")
        known = [f"{service.full_name}/{method.name}" for service, _ in loaded for method in service.methods]
        said = f"it has {', '.join(sorted(known))}" if known else "it describes no services; reflection does that"
        raise CallFailed("NOT_FOUND", f"the model has no method {name}; {said}")

    def call(
        self, method: Method, requests: Iterable[str], *, timeout_s: float | None, one: str = "the request"
    ) -> Iterator[str]:
        """Send JSON `requests` as they come, and yield each response as JSON as soon as it is there.

        A faulty request ends the call with `UnusableInput`, which calls that request `one`.
        """
        outgoing = _Requests(method, requests, one)
        # One shape serves every cardinality: on the wire they are the same.
        start = self._channel.stream_stream(
            method.path,
            request_serializer=_serialize,
            response_deserializer=message_factory.GetMessageClass(method.descriptor.output_type).FromString,
        )
        call: Any = start(outgoing.messages(), timeout=timeout_s, metadata=self._metadata)
        outgoing.started(call.cancel)
        try:
            for response in call:
                yield method.format(response)
        except grpc.RpcError as error:
            raise outgoing.fault or self._failure(call) from error
        finally:
            call.cancel()

    def _service_names(self) -> list[str]:
        answer = self._ask(reflection.ServerReflectionRequest(list_services=""))
        names = [service.name for service in answer.list_services_response.service]
        return sorted(name for name in names if not name.startswith(_OF_THE_SERVER))

    def _load(self, service: str) -> tuple[ServiceDescriptor, descriptor_pool.DescriptorPool]:
        """A service with every type it needs, in a pool of its own: types of other services may have the same names."""
        files = self._files(reflection.ServerReflectionRequest(file_containing_symbol=service))
        wanted = {name for file in files.values() for name in file.dependency}
        while missing := wanted - files.keys():
            name = min(missing)
            files |= self._files(reflection.ServerReflectionRequest(file_by_filename=name))
            if name not in files:
                raise CallFailed("NOT_FOUND", f"the server does not describe {name}, which {service} needs")
            wanted |= set(files[name].dependency)
        pool = descriptor_pool.DescriptorPool()
        _add_all(pool, files)
        try:
            return pool.FindServiceByName(service), pool  # type: ignore[no-untyped-call]
        except KeyError as error:
            raise CallFailed("NOT_FOUND", f"{service} is not a service") from error

    def _files(self, request: reflection.ServerReflectionRequest) -> dict[str, FileDescriptorProto]:
        try:
            answer = self._ask(request)
            parsed = map(FileDescriptorProto.FromString, answer.file_descriptor_response.file_descriptor_proto)
            return {file.name: file for file in parsed}
        except DecodeError as error:
            raise CallFailed(
                "INTERNAL", f"the server describes its services in a form unknown here: {error}"
            ) from error

    def _ask(self, request: reflection.ServerReflectionRequest) -> reflection.ServerReflectionResponse:
        ask = self._channel.stream_stream(
            _REFLECTION,
            request_serializer=_serialize,
            response_deserializer=reflection.ServerReflectionResponse.FromString,
        )
        call: Any = ask(iter([request]), timeout=REFLECTION_TIMEOUT_S, metadata=self._metadata)
        try:
            answer: reflection.ServerReflectionResponse = next(call)
        except (grpc.RpcError, StopIteration) as error:
            raise self._failure(call) from error
        finally:
            call.cancel()
        if answer.HasField("error_response"):
            asked = request.file_containing_symbol or request.file_by_filename
            code = _name_of(answer.error_response.error_code)
            raise CallFailed(code, f"{asked} is not described here: {answer.error_response.error_message}")
        return answer

    def _failure(self, call: Any) -> CallFailed:
        code = call.code().name
        details = call.details() or "no details were given"
        request_id = next((value for key, value in call.trailing_metadata() or () if key == "request_id"), None)
        if code == "UNAVAILABLE" and request_id is None:
            details = f"{self._target} cannot be reached: {details}\n{_ADVICE}"
        return CallFailed(code, details, **({"request_id": request_id} if request_id else {}))


class _Requests:
    """Turns texts into messages on the thread that gRPC sends from, and keeps the fault that stopped it."""

    def __init__(self, method: Method, requests: Iterable[str], one: str) -> None:
        self.fault: Exception | None = None
        self._method = method
        self._requests = requests
        self._one = one
        self._cancel: Callable[[], object] = lambda: None
        self._is_started = threading.Event()

    def started(self, cancel: Callable[[], object]) -> None:
        """Take how to cancel the call, which exists now."""
        self._cancel = cancel
        self._is_started.set()

    def messages(self) -> Iterator[Message]:
        try:
            for number, text in enumerate(self._requests, start=1):
                yield self._method.parse(text, f"{self._one} {number}" if self._method.takes_stream else self._one)
        except (UnusableInput, OSError, UnicodeDecodeError) as error:
            # An exception raised here would only reach gRPC's own log.
            self.fault = error if not isinstance(error, UnicodeDecodeError) else UnusableInput("the input is not UTF-8")
            self._is_started.wait()
            self._cancel()


def _add_all(pool: descriptor_pool.DescriptorPool, files: dict[str, FileDescriptorProto]) -> None:
    """Add each file after those it imports."""
    pending = dict(files)
    while pending:
        ready = [name for name, file in pending.items() if not pending.keys() & set(file.dependency)]
        if not ready:
            raise CallFailed("INTERNAL", f"the server describes files that import each other: {', '.join(pending)}")
        for name in ready:
            try:
                pool.AddSerializedFile(  # type: ignore[no-untyped-call]
                    pending.pop(name).SerializeToString()
                )
            except TypeError as error:
                raise CallFailed("INTERNAL", f"the server describes {name} in a form unknown here: {error}") from error


def _read_ca(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnusableInput(f"the CA file {path} cannot be used: {error.strerror or error}") from error


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def _name_of(number: int) -> str:
    return next((code.name for code in grpc.StatusCode if code.value[0] == number), "UNKNOWN")
