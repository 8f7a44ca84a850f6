"""The descriptions of the services that the gateway knows without asking a replica."""

from contextlib import suppress

from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from grpc_gateway.generated import kserve_pb2, ray_serve_pb2, stream_pb2

FILES: tuple[bytes, ...] = (
    stream_pb2.DESCRIPTOR.serialized_pb,
    ray_serve_pb2.DESCRIPTOR.serialized_pb,
    kserve_pb2.DESCRIPTOR.serialized_pb,
    health_pb2.DESCRIPTOR.serialized_pb,
    reflection_pb2.DESCRIPTOR.serialized_pb,
)
_ALPHA, _STABLE = "grpc.reflection.v1alpha", "grpc.reflection.v1"


class OwnDescriptors:
    """A descriptor pool of its own: it shows nothing else that this process has loaded."""

    def __init__(self) -> None:
        self._pool = descriptor_pool.DescriptorPool()
        protos = [FileDescriptorProto.FromString(file) for file in FILES]
        # The package has v1alpha alone; v1 is the same under another name.
        protos.append(_rename(FileDescriptorProto.FromString(reflection_pb2.DESCRIPTOR.serialized_pb)))
        for proto in protos:
            self._pool.AddSerializedFile(proto.SerializeToString())  # type: ignore[no-untyped-call]
        self.services = sorted(f"{proto.package}.{service.name}" for proto in protos for service in proto.service)

    def file_named(self, name: str) -> bytes | None:
        """The FileDescriptorProto of a file, or None if there is none. No file here imports another."""
        try:
            return bytes(self._pool.FindFileByName(name).serialized_pb)  # type: ignore[no-untyped-call]
        except KeyError:
            return None

    def file_with(self, symbol: str) -> bytes | None:
        """The FileDescriptorProto that defines a service, method, message, field or enum; None if none does."""
        owner, _, member = symbol.rpartition(".")
        # The pool finds methods and fields only through their service or message.
        return self._file_with(owner if self._has_member(owner, member) else symbol)

    def has_message(self, name: str) -> bool:
        """Whether a message of this name is described here."""
        try:
            self._pool.FindMessageTypeByName(name)  # type: ignore[no-untyped-call]
        except KeyError:
            return False
        return True

    def _file_with(self, symbol: str) -> bytes | None:
        try:
            return bytes(self._pool.FindFileContainingSymbol(symbol).serialized_pb)  # type: ignore[no-untyped-call]
        except KeyError:
            return None

    def _has_member(self, owner: str, member: str) -> bool:
        with suppress(KeyError):
            return member in self._pool.FindServiceByName(owner).methods_by_name  # type: ignore[no-untyped-call]
        with suppress(KeyError):
            return member in self._pool.FindMessageTypeByName(owner).fields_by_name  # type: ignore[no-untyped-call]
        return False


def _rename(proto: FileDescriptorProto) -> FileDescriptorProto:
    proto.name = "grpc/reflection/v1/reflection.proto"
    proto.package = _STABLE
    for message in proto.message_type:
        for field in filter(_has_type_name, message.field):
            field.type_name = field.type_name.replace(f".{_ALPHA}.", f".{_STABLE}.")
    for service in proto.service:
        for method in service.method:
            method.input_type = method.input_type.replace(f".{_ALPHA}.", f".{_STABLE}.")
            method.output_type = method.output_type.replace(f".{_ALPHA}.", f".{_STABLE}.")
    return proto


def _has_type_name(field: FieldDescriptorProto) -> bool:
    # A field that is set to nothing differs from one that is not set.
    return field.HasField("type_name")
