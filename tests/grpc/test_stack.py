"""Public clients, as the documentation shows them, through TLS and Traefik on the whole Compose stack.

By the name `grpc.<domain>` HTTP/2 passes Traefik as it is; by the domain itself Traefik reads it.
"""

import json
import queue
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.e2e.grpc_door import application
from tests.grpc import lines
from tests.grpc.containers import require_image
from tests.grpc.scripts import start_script
from tests.grpc.stack import (
    EXAMPLES,
    HOSTS,
    SOON_S,
    Stack,
    check_composition,
    follow,
    serving_of,
    told_until,
)
from tests.zips import zip_folder

CLIENTS = lines.USER_SERVICE | lines.NUM_LOOKUP | lines.TENSORFLOW | lines.KSERVE | lines.KSERVE_STRICT | lines.GATEWAY
CODE = grpc.StatusCode


@pytest.fixture(scope="module", autouse=True)
def idle_client(stack: Stack) -> Iterator[subprocess.Popen[str]]:
    """One that has nothing to say for a while, beside the tests of this module."""
    targets = f"{stack.target('grpc.localhost')},{stack.target('localhost')}"
    given = {"GRPC_CERTIFICATE": str(stack.grpc.system.verify), "IDLE_S": "45"}
    with start_script("kserve_keepalive.py", stack.stubs, targets, given) as process:
        yield process
        process.kill()


@HOSTS
@pytest.mark.parametrize(("script", "expected"), CLIENTS.items())
def test_every_public_client_works(stack: Stack, host: str, script: str, expected: list[str]) -> None:
    assert stack.run(script, host) == expected


@HOSTS
def test_a_deployment_calls_another_through_the_gateway(stack: Stack, host: str) -> None:
    check_composition(stack.run("ray_composition.py", host))


@HOSTS
def test_tritons_client_sends_64_mib_and_gets_them_back(stack: Stack, host: str) -> None:
    assert stack.run("kserve_large.py", host) == ["True"]


@HOSTS
def test_tritons_client_is_told_of_versions_and_of_all_statistics(stack: Stack, host: str) -> None:
    assert stack.run("kserve_versions.py", host) == [
        "True False",
        "['1']",
        "True True",
        "['add_sub', 'identity', 'identity_bytes', 'repeat']",
    ]


@HOSTS
def test_a_restricted_key_closes_inference_to_tritons_client(stack: Stack, host: str) -> None:
    told = "This protocol is restricted, expecting header 'triton-grpc-protocol-infer-key'"
    keys = [{"categories": ["inference"], "key": "infer-key", "value": "infer-value"}]
    serving = {**serving_of(EXAMPLES / "grpc" / "kserve_model"), "model_names": [], "restricted_keys": keys}
    with stack.deployed("kserve-model", serving) as locked:
        printed = stack.run("kserve_restricted.py", host, {"APPLICATION": locked})
    assert printed == [f"StatusCode.UNAVAILABLE {told}", "[1.0]", told, "[1.0]"]


def test_tritons_client_works_with_triton_itself(stack: Stack) -> None:
    require_image("inference-server/triton:1")
    folder = EXAMPLES / "grpc" / "triton"
    with stack.replaced("kserve-model", "triton", serving_of(folder), zip_folder(folder / "models")):
        for script, expected in lines.KSERVE.items():
            assert stack.run(script, "grpc.localhost") == expected, script


@pytest.mark.parametrize("mode", [["--async"], ["--async", "--streaming"]], ids=["unary", "stream"])
def test_tritons_load_generator_gets_every_answer(stack: Stack, mode: list[str]) -> None:
    require_image("inference-server/perf-analyzer:1")
    mounted = ("--network", "host", "--volume", f"{stack.grpc.system.verify}:/server.crt:ro")
    tls = ("--ssl-grpc-use-ssl", "--ssl-grpc-root-certifications-file", "/server.crt")
    # Requests by count, and stable from the first window on: how fast they are is not the question.
    load = ("--concurrency-range", "32", "--request-count", "500", "--stability-percentage", "999")
    # Its own gRPC knows no names below `localhost`.
    given = (
        "-m",
        "add_sub",
        "-i",
        "grpc",
        "-u",
        stack.target("localhost"),
        "--shape",
        "INPUT0:16",
        "--shape",
        "INPUT1:16",
    )
    command = ["docker", "run", "--rm", *mounted, "inference-server/perf-analyzer:1", *given, *tls, *load, *mode]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Request count: 500\n" in done.stdout


def test_the_ocr_model_reads_a_page_by_both_doors(stack: Stack, tmp_path: Path) -> None:
    require_image("inference-server/ocr:1")
    import ocr_pb2
    import ocr_pb2_grpc

    read, page = ["Spleen volume 212 ml", "No contrast agent was given"], tmp_path / "page.png"
    for script, *arguments in (["make_page.py", page, *read], ["build_model_zip.py", tmp_path / "model.zip"]):
        subprocess.run([sys.executable, EXAMPLES / "ocr" / script, *arguments], check=True, capture_output=True)
    archive = (tmp_path / "model.zip").read_bytes()
    with stack.deployed("ocr", serving_of(EXAMPLES / "ocr"), archive) as ocr:
        (replica,) = stack.grpc.replicas(ocr)
        with stack.grpc.channel() as channel:
            text = ocr_pb2_grpc.ReaderStub(channel).Read(
                ocr_pb2.Page(image=page.read_bytes()), metadata=application(ocr), timeout=600
            )
        assert [line.text for line in text.lines] == read
        uid = stack.grpc.door.submit(ocr, {"page.png": page.read_bytes()})
        (told,) = json.loads(stack.grpc.door.result(uid)["text.json"])["pages"]
        assert [line["text"] for line in told["lines"]] == read
        assert stack.ran_in(uid) == replica["uid"]


def test_health_and_reflection_tell_of_the_deployments(stack: Stack, channel: grpc.Channel, stubs: Path) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", "app1", "half_plus_two", "inference.GRPCInferenceService"):
        assert health.Check(health_pb2.HealthCheckRequest(service=name), timeout=SOON_S).status == 1
    with pytest.raises(grpc.RpcError) as caught:
        health.Check(health_pb2.HealthCheckRequest(service="no.Such"), timeout=SOON_S)
    assert caught.value.code() is CODE.NOT_FOUND
    database = ProtoReflectionDescriptorDatabase(channel)
    wanted = {"userdefinedprotos.UserDefinedService", "inference.GRPCInferenceService", "redhare.Inference"}
    assert wanted <= set(database.get_services())
    service = DescriptorPool(database).FindServiceByName("userdefinedprotos.UserDefinedService")
    assert service.methods_by_name["Streaming"].output_type.name == "UserDefinedResponse"


def test_a_watch_tells_when_a_deployment_goes(stack: Stack, channel: grpc.Channel) -> None:
    told: queue.Queue[int] = queue.Queue()
    with stack.deployed("user-service", serving_of(EXAMPLES / "grpc" / "user_service")) as passing:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=passing))
        follower = follow(watch, told)
        # Of the gateway's processes the one that is watched may hear of the deployment, and that it is ready, last.
        told_until(told, health_pb2.HealthCheckResponse.SERVING)
    told_until(told, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
    watch.cancel()
    follower.join(SOON_S)


def test_a_client_that_pings_on_an_idle_connection_keeps_it(idle_client: subprocess.Popen[str]) -> None:
    said, told = idle_client.communicate(timeout=600)
    assert said.splitlines() == ["[True, True]"] * 2, told
    assert "goaway" not in told.lower(), told
