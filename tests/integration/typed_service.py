"""A service of a user's own with a description, as reflection tells it; importing this makes it known."""

from google.protobuf import descriptor_pb2, descriptor_pool

TYPED = "user.typed.Service"
_METHODS = {"Echo": (False, False), "Metadata": (False, False), "HeldStream": (True, True), "Many": (False, True)}


def _describe() -> None:
    file = descriptor_pb2.FileDescriptorProto(name="user/typed.proto", package="user.typed", syntax="proto3")
    file.message_type.add(name="Blob")
    service = file.service.add(name="Service")
    for name, (client, server) in _METHODS.items():
        service.method.add(
            name=name,
            input_type=".user.typed.Blob",
            output_type=".user.typed.Blob",
            client_streaming=client,
            server_streaming=server,
        )
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())


_describe()
