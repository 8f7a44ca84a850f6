"""Tools that build requests from reflection see the gateway's services and those behind it."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection, reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.integration.grpc_harness import RunningGateway, route, run_harness_gateway
from tests.labeler import LABELER, Replica, add_labeler, descriptor_of, labeler_servicer, running_replica
from tests.waiting import wait_until

OWN = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "inference.GRPCInferenceService",
    "ray.serve.RayServeAPIService",
    "redhare.Inference",
]
SOON_S = 60
Request = reflection_pb2.ServerReflectionRequest
PATHS = [f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo" for version in ("v1alpha", "v1")]


def add_described(file: FileDescriptorProto, service: str) -> Callable[[Any], None]:
    """A server that describes a service of `file`, which stands for one that serves it."""
    pool = DescriptorPool()
    for name in ("google/protobuf/timestamp.proto", "google/protobuf/any.proto"):
        pool.AddSerializedFile(reflection_pool_file(name))  # type: ignore[no-untyped-call]
    pool.AddSerializedFile(reflection_pool_file("pictures/picture.proto"))  # type: ignore[no-untyped-call]
    pool.AddSerializedFile(file.SerializeToString())  # type: ignore[no-untyped-call]
    return lambda server: reflection.enable_server_reflection([service], server, pool=pool)


def reflection_pool_file(name: str) -> bytes:
    descriptor_of("loads-them-all")
    from google.protobuf import descriptor_pool

    return bytes(descriptor_pool.Default().FindFileByName(name).serialized_pb)  # type: ignore[no-untyped-call]


@pytest.fixture
def start() -> Iterator[Callable[..., Replica]]:
    with ExitStack() as stack:
        yield lambda *adders: stack.enter_context(running_replica(*adders))


@pytest.fixture
def labeler(start: Callable[..., Replica]) -> Replica:
    return start(lambda server: add_labeler(server, labeler_servicer()))


def ask(gateway: RunningGateway, *requests: Any, path: str = PATHS[0], **metadata: str) -> list[Any]:
    """The answers to questions on one stream."""
    method = gateway.channel.stream_stream(
        path,
        request_serializer=Request.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    return list(method(iter(requests), timeout=SOON_S, metadata=tuple(metadata.items())))


def names(gateway: RunningGateway, **metadata: str) -> list[str]:
    (answer,) = ask(gateway, Request(list_services="*"), **metadata)
    return [service.name for service in answer.list_services_response.service]


def file_with(gateway: RunningGateway, symbol: str, **metadata: str) -> FileDescriptorProto | None:
    """The file that defines the symbol: the first one of the answer."""
    (answer,) = ask(gateway, Request(file_containing_symbol=symbol), **metadata)
    files = answer.file_descriptor_response.file_descriptor_proto
    return FileDescriptorProto.FromString(files[0]) if files else None


def error_of(answer: Any) -> str:
    number = answer.error_response.error_code
    return next(code.name for code in grpc.StatusCode if code.value[0] == number)


@pytest.mark.parametrize("path", PATHS)
def test_own_services_and_those_of_deployments_are_listed(gateway, labeler, path):
    gateway.give(route("m", labeler.address))
    request = Request(host="gate", list_services="*")
    (answer,) = ask(gateway, request, path=path)
    assert [service.name for service in answer.list_services_response.service] == [LABELER, *OWN]
    assert (answer.original_request, answer.valid_host) == (request, "gate")


def test_without_deployments_the_gateway_describes_itself(gateway):
    gateway.give()
    assert names(gateway) == OWN
    for service in OWN:
        file = file_with(gateway, service)
        assert file is not None
        assert service in [f"{file.package}.{each.name}" for each in file.service]
        # Each file stands alone.
        DescriptorPool().AddSerializedFile(file.SerializeToString())  # type: ignore[no-untyped-call]
        (answer,) = ask(gateway, Request(file_by_filename=file.name))
        assert answer.file_descriptor_response.file_descriptor_proto[0] == file.SerializeToString()
    for symbol in ("redhare.Inference.auth", "inference.ModelInferRequest.InferInputTensor", "redhare.Request.token"):
        assert file_with(gateway, symbol) is not None


def test_a_public_client_of_reflection_builds_the_whole_service(gateway, labeler):
    gateway.give(route("m", labeler.address))
    database = ProtoReflectionDescriptorDatabase(gateway.channel)
    assert LABELER in database.get_services()
    pool = DescriptorPool(database)
    service = pool.FindServiceByName(LABELER)  # type: ignore[no-untyped-call]
    assert [method.name for method in service.methods] == ["Label", "Explain", "Count", "Chat"]
    assert service.methods_by_name["Label"].output_type.fields_by_name["at"].message_type.name == "Timestamp"
    assert pool.FindMessageTypeByName("acme.Picture").fields_by_name["extra"].number == 3  # type: ignore[no-untyped-call]


def test_application_and_prefix_narrow_it_to_one_deployment(gateway, labeler, start):
    silent = start(lambda server: add_labeler(server, labeler_servicer(), described=False))
    gateway.give(
        route("labels", labeler.address, prefix="lab"),
        route("triton", silent.address, protocol="kserve"),
        route("silent", silent.address),
    )
    assert names(gateway, application="labels") == [LABELER, "grpc.reflection.v1alpha.ServerReflection"]
    (answer,) = ask(gateway, Request(list_services="*"), path=f"/lab{PATHS[0]}")
    assert LABELER in [service.name for service in answer.list_services_response.service]
    # What a public protocol is needs no replica that says it.
    assert names(gateway, application="triton") == ["inference.GRPCInferenceService"]
    assert file_with(gateway, "inference.GRPCInferenceService", application="triton") is not None
    assert names(gateway, application="silent") == []
    assert file_with(gateway, LABELER, application="silent") is None
    assert names(gateway) == [LABELER, *OWN]
    with pytest.raises(grpc.RpcError) as error:
        names(gateway, application="nobody")
    assert error.value.code() is grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]


def test_of_two_definitions_of_a_name_the_first_deployment_by_id_counts(gateway, labeler, start):
    other = descriptor_of("other.proto")
    other.message_type[0].field.add(name="only_here", number=9, type=9, label=1)
    second = start(add_described(other, LABELER))
    gateway.give(route("b", labeler.address), route("a", second.address))
    assert file_with(gateway, LABELER).name == "other.proto"
    assert file_with(gateway, LABELER, application="a").name == "other.proto"
    assert file_with(gateway, LABELER, application="b").name == "labeler.proto"
    gateway.give(route("b", labeler.address), route("c", second.address))
    assert file_with(gateway, LABELER).name == "labeler.proto"


def test_a_files_name_means_the_deployment_that_answered_before(gateway, labeler, start):
    other = descriptor_of("labeler.proto")
    other.package = "other"
    for method in other.service[0].method:
        method.output_type = ".other.Answer"
    second = start(add_described(other, "other.Labeler"))
    gateway.give(route("a", labeler.address), route("b", second.address))
    by_name = Request(file_by_filename="labeler.proto")
    for symbol, package in (("other.Labeler", "other"), (LABELER, "acme")):
        answer = ask(gateway, Request(file_containing_symbol=symbol), by_name)[1]
        file = FileDescriptorProto.FromString(answer.file_descriptor_response.file_descriptor_proto[0])
        assert file.package == package


def test_a_replica_that_says_nothing_hinders_nobody(gateway, labeler, start):
    silent = start(lambda server: add_labeler(server, labeler_servicer(), described=False))
    gateway.give(route("a", silent.address), route("b", "127.0.0.1:1"), route("c", labeler.address), route("d"))
    assert names(gateway) == [LABELER, *OWN]
    assert file_with(gateway, LABELER) is not None


def test_answers_are_kept_as_long_as_the_replica_is_in_the_table(gateway):
    with running_replica(lambda server: add_labeler(server, labeler_servicer())) as replica:
        gateway.give(route("m", replica.address))
        assert file_with(gateway, LABELER) is not None
    assert file_with(gateway, LABELER) is not None
    gateway.give(route("m"))
    assert file_with(gateway, LABELER) is None


def test_a_question_about_a_deployment_without_replicas_starts_one(gateway, labeler):
    gateway.give(route("m"), route("n"))
    answers: queue.Queue[list[str]] = queue.Queue()
    asking = threading.Thread(target=lambda: answers.put(names(gateway, application="m")))
    asking.start()
    deployment = gateway.run(lambda: gateway.server.table.deployments["m"])
    wait_until(lambda: gateway.run(lambda: deployment.load(0.0).queued) == 1, "the question waits")
    gateway.give(route("m", labeler.address), route("n"))
    asking.join(SOON_S)
    assert LABELER in answers.get_nowait()


def test_what_nobody_describes_is_not_found(gateway, labeler):
    gateway.give(route("m", labeler.address))
    questions = [
        Request(file_containing_symbol="acme.Nobody"),
        Request(file_by_filename="nobody.proto"),
        Request(all_extension_numbers_of_type="acme.Nobody"),
        Request(file_containing_extension=reflection_pb2.ExtensionRequest(containing_type="x", extension_number=1)),
        Request(),
        # The stream goes on after all of them.
        Request(all_extension_numbers_of_type="redhare.Request"),
        Request(file_containing_symbol=LABELER),
    ]
    answers = ask(gateway, *questions)
    assert [error_of(answer) for answer in answers[:5]] == ["NOT_FOUND"] * 4 + ["INVALID_ARGUMENT"]
    assert answers[0].error_response.error_message == "Nothing here describes acme.Nobody."
    assert answers[5].all_extension_numbers_response.base_type_name == "redhare.Request"
    assert answers[6].file_descriptor_response.file_descriptor_proto


def test_what_is_no_question_ends_the_stream(gateway):
    gateway.give()
    call = gateway.stream(PATHS[0])(iter([b"\xff\xff"]), timeout=SOON_S)
    with pytest.raises(grpc.RpcError):
        next(call)
    assert call.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_where_keys_are_required_reflection_requires_one():
    with run_harness_gateway(requires_key=True) as gateway:
        gateway.give()
        with pytest.raises(grpc.RpcError) as error:
            names(gateway)
        assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED  # type: ignore[attr-defined]
