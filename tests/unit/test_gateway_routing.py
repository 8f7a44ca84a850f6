"""Where calls go, as tables over the rules: no channel, no replica, no network."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import grpc
import pytest

from contract.deployments import Route, RoutingTable
from grpc_gateway.admission import Limits
from grpc_gateway.calls import Call
from grpc_gateway.deployments import Deployment
from grpc_gateway.headers import Headers
from grpc_gateway.routing import Router
from grpc_gateway.statuses import StatusError
from grpc_gateway.table import Table
from kit.protobuf import bytes_field, text_field, varint_field
from tests.integration.grpc_harness import route

CODE = grpc.StatusCode
ECHO = "/user.Own/Echo"
KSERVE = "/inference.GRPCInferenceService"
INFER = f"{KSERVE}/ModelInfer"
LOAD = f"{KSERVE}/RepositoryModelLoad"
STATISTICS = f"{KSERVE}/ModelStatistics"
TENSORFLOW = "/tensorflow.serving"
PREDICT = f"{TENSORFLOW}.PredictionService/Predict"
STATUS = f"{TENSORFLOW}.ModelService/GetModelStatus"
PING = "Ping /ray.serve.RayServeAPIService/ListApplications for available applications."

A, B = route("a"), route("b")
NAMED = [route("a", application="App", model_names=["ma"]), route("b", model_names=["mb", "mc"])]
PREFIXED = [route("a", prefix="p", protocol="kserve"), route("b", prefix="q", default_service="user.Own"), route("c")]
BARE = [route("a", prefix="p"), B]
RESTRICTED = [route("a", restricted_keys=[{"categories": ["inference"], "key": "k", "value": "open"}])]
STOCK = [route(name, protocol="tensorflow", prefix=name, unrouted_model_names=["model"]) for name in ("s1", "s2")]
INSIDE = [route("ray", protocol="ray", applications=["app1", "app2"]), route("app3")]
LISTED = [route("a", model_names=["known"])]
KSERVES = [route("a", protocol="kserve"), route("b", protocol="kserve"), route("c")]
ADMIN = [route("a", allow_admin=True), route("b", allow_admin=True)]
_Result = TypeVar("_Result")


def spec(name: str, version: int | None = None) -> bytes:
    """TensorFlow's ModelSpec as field 1."""
    return bytes_field(1, text_field(1, name) + (b"" if version is None else bytes_field(2, varint_field(1, version))))


def decide(
    routes: Sequence[Route] | None, path: str, metadata: dict[str, str], rule: Callable[[Router, Call], _Result]
) -> _Result | tuple[grpc.StatusCode, str]:
    """What a rule says of a call under this table (None: before the first one), or the status it refuses it with."""

    async def run() -> _Result | tuple[grpc.StatusCode, str]:
        table = Table(Limits(), lambda _: None)
        if routes is not None:
            table.apply(RoutingTable(etag="tag", routes=list(routes)))
        router = Router(table)
        try:
            return rule(router, router.begin(path, Headers(metadata.items())))
        except StatusError as error:
            return error.code, error.details

    return asyncio.run(run())


def find(routes: Sequence[Route] | None, path: str, metadata: dict[str, str], message: bytes) -> object:
    """The deployment and the path that its replicas see, or the refusal."""

    def target(router: Router, call: Call) -> tuple[str, str]:
        found = router.find(call, message)
        return found.deployment.id, found.path

    return decide(routes, path, metadata, target)


@pytest.mark.parametrize(
    ("routes", "path", "metadata", "message", "target"),
    [
        # A prefix goes before application and message, in both forms of the path.
        (PREFIXED, f"/p{INFER}", {"application": "b"}, text_field(1, "b"), ("a", INFER)),
        (PREFIXED, "/p/ModelInfer", {}, text_field(1, "b"), ("a", INFER)),
        (PREFIXED, "/q/Echo", {}, b"", ("b", ECHO)),
        (PREFIXED, f"/q{INFER}", {}, b"", ("b", INFER)),
        # Then application, exactly as it is written.
        (NAMED, ECHO, {"application": "App"}, b"", ("a", ECHO)),
        (NAMED, ECHO, {"application": "b"}, b"", ("b", ECHO)),
        (NAMED, INFER, {"application": "App"}, text_field(1, "mb"), ("a", INFER)),
        # Each of those inside a container leads to it.
        (INSIDE, ECHO, {"application": "app1"}, b"", ("ray", ECHO)),
        (INSIDE, ECHO, {"application": "app2"}, b"", ("ray", ECHO)),
        (INSIDE, ECHO, {"application": "app3"}, b"", ("app3", ECHO)),
        # Then the model that the message names.
        (NAMED, INFER, {}, text_field(1, "ma"), ("a", INFER)),
        (NAMED, INFER, {}, text_field(1, "mc"), ("b", INFER)),
        (NAMED, PREDICT, {}, spec("mb"), ("b", PREDICT)),
        (NAMED, STATUS, {}, spec("ma", 3), ("a", STATUS)),
        (ADMIN[:1], f"{KSERVE}/TraceSetting", {}, b"", ("a", f"{KSERVE}/TraceSetting")),
        (ADMIN, LOAD, {}, text_field(1, "a") + text_field(2, "b"), ("b", LOAD)),
        # Then the only deployment, whatever is named.
        ([A], ECHO, {}, b"", ("a", ECHO)),
        ([A], INFER, {}, text_field(1, "other"), ("a", INFER)),
        ([A], INFER, {}, b"", ("a", INFER)),
        ([A], INFER, {}, b"\xff\xff", ("a", INFER)),
        # Unless it lists its models.
        (LISTED, INFER, {}, text_field(1, "known"), ("a", INFER)),
        (LISTED, ECHO, {}, b"", ("a", ECHO)),
        # Names that several containers have inside lead nowhere by themselves.
        (STOCK, "/s1/Predict", {}, spec("model"), ("s1", PREDICT)),
        (STOCK, "/s2/Predict", {}, spec("model"), ("s2", PREDICT)),
        (STOCK, PREDICT, {"application": "s2"}, spec("model"), ("s2", PREDICT)),
        (STOCK[:1], PREDICT, {}, spec("model"), ("s1", PREDICT)),
        # Statistics of no model are those of the only KServe deployment.
        ([route("a", protocol="kserve"), B], STATISTICS, {}, b"", ("a", STATISTICS)),
        (KSERVES, STATISTICS, {"application": "b"}, b"", ("b", STATISTICS)),
        (KSERVES, STATISTICS, {}, text_field(1, "b"), ("b", STATISTICS)),
        # A restricted key opens its categories, and the others need none.
        (RESTRICTED, INFER, {"triton-grpc-protocol-k": "open"}, b"", ("a", INFER)),
        (RESTRICTED, STATISTICS, {}, text_field(1, "a"), ("a", STATISTICS)),
        (RESTRICTED, ECHO, {}, b"", ("a", ECHO)),
    ],
)
def test_where_a_call_goes(
    routes: Sequence[Route], path: str, metadata: dict[str, str], message: bytes, target: tuple[str, str]
) -> None:
    assert find(routes, path, metadata, message) == target


NO_APPLICATION = (CODE.NOT_FOUND, f"Application metadata not set. {PING}")
EARLY = (CODE.UNAVAILABLE, "Route table is not populated yet.")


@pytest.mark.parametrize(
    ("routes", "path", "metadata", "message", "refusal"),
    [
        *((None, path, {}, b"", EARLY) for path in (ECHO, INFER, f"/p{ECHO}")),
        # Prefixes.
        (BARE, f"/x{ECHO}", {}, b"", (CODE.NOT_FOUND, "No deployment has the prefix 'x'.")),
        (BARE, "/x/Echo", {}, b"", (CODE.NOT_FOUND, "No deployment has the prefix 'x'.")),
        (
            BARE,
            "/p/Echo",
            {},
            b"",
            (
                CODE.UNIMPLEMENTED,
                "Deployment 'a' has no default_service: call /p/<package.Service>/<Method>.",
            ),
        ),
        # Ambiguous, or nothing there.
        ([A, B], ECHO, {}, b"", NO_APPLICATION),
        ([A, B], ECHO, {"application": ""}, b"", NO_APPLICATION),
        ([A, B], "/Greeter/Hello", {}, b"", NO_APPLICATION),
        ([A, B], ECHO, {"application": "A"}, b"", (CODE.NOT_FOUND, f"Application 'A' not found. {PING}")),
        ([], ECHO, {}, b"", NO_APPLICATION),
        ([], ECHO, {"application": "a"}, b"", (CODE.NOT_FOUND, f"Application 'a' not found. {PING}")),
        ([A], ECHO, {"application": "wrong"}, b"", (CODE.NOT_FOUND, f"Application 'wrong' not found. {PING}")),
        # Models.
        ([A, B], INFER, {}, text_field(1, "x"), (CODE.NOT_FOUND, "Request for unknown model: 'x' is not found")),
        (
            LISTED,
            INFER,
            {},
            text_field(1, "x") + text_field(2, "9"),
            (CODE.NOT_FOUND, "Request for unknown model: 'x' version 9 is not found"),
        ),
        ([A, B], PREDICT, {}, spec("x"), (CODE.NOT_FOUND, "Servable not found for request: Latest(x)")),
        (STOCK, PREDICT, {}, spec("model"), (CODE.NOT_FOUND, "Servable not found for request: Latest(model)")),
        (STOCK, PREDICT, {}, spec("s1"), (CODE.NOT_FOUND, "Servable not found for request: Latest(s1)")),
        (STOCK[:1], PREDICT, {}, spec("x"), (CODE.NOT_FOUND, "Servable not found for request: Latest(x)")),
        (INSIDE, ECHO, {"application": "ray"}, b"", (CODE.NOT_FOUND, f"Application 'ray' not found. {PING}")),
        ([A, B], PREDICT, {}, spec("x", 5), (CODE.NOT_FOUND, "Servable not found for request: Specific(x, 5)")),
        ([A, B], PREDICT, {}, spec(""), (CODE.INVALID_ARGUMENT, "ModelSpec has no name specified.")),
        ([A, B], PREDICT, {}, b"", (CODE.INVALID_ARGUMENT, "Missing ModelSpec")),
        ([A, B], STATUS, {}, spec("x"), (CODE.NOT_FOUND, "Could not find any versions of model x")),
        (
            KSERVES,
            STATISTICS,
            {},
            b"",
            (
                CODE.INVALID_ARGUMENT,
                "ModelStatistics names no model, and of KServe deployments there are 2 (a, b): name a model, or the "
                "deployment by the metadata application.",
            ),
        ),
        # What a deployment has to allow.
        *(
            (
                ADMIN if allowed else [A, B],
                f"{KSERVE}/{method}",
                {},
                b"",
                (CODE.UNIMPLEMENTED, f"{method} is passed on only where a deployment sets allow_admin."),
            )
            for method in ("TraceSetting", "LogSettings", "RepositoryModelLoad")
            for allowed in (False, True)
        ),
        *(
            (
                [A],
                f"{KSERVE}/{method}",
                {},
                text_field(2, "a"),
                (CODE.UNIMPLEMENTED, f"{method} is passed on only where a deployment sets allow_admin."),
            )
            for method in ("RepositoryModelLoad", "CudaSharedMemoryStatus", "LogSettings", "NobodyKnows")
        ),
        (
            ADMIN[:1],
            "/inferenceserver.Tasks/Run",
            {},
            b"",
            (
                CODE.UNIMPLEMENTED,
                "inferenceserver.Tasks is for the server itself: submit a task by POST /api/tasks/.",
            ),
        ),
        *(
            (
                RESTRICTED,
                INFER,
                metadata,
                text_field(1, "a"),
                (CODE.UNAVAILABLE, "This protocol is restricted, expecting header 'triton-grpc-protocol-k'"),
            )
            for metadata in ({}, {"triton-grpc-protocol-k": "shut"}, {"triton-grpc-protocol-k": ""})
        ),
    ],
)
def test_which_call_is_refused_and_in_which_words(
    routes: Sequence[Route] | None,
    path: str,
    metadata: dict[str, str],
    message: bytes,
    refusal: tuple[grpc.StatusCode, str],
) -> None:
    assert find(routes, path, metadata, message) == refusal


def name_of(deployment: Deployment | None) -> str | None:
    return deployment.id if deployment else None


@pytest.mark.parametrize(
    ("routes", "path", "metadata", "known"),
    [
        (NAMED, ECHO, {}, (True, False, None)),
        (NAMED, ECHO, {"application": "App"}, (True, False, "a")),
        # Perhaps younger than the table.
        (NAMED, ECHO, {"application": "app"}, (False, False, None)),
        ([A], ECHO, {"application": "b"}, (False, False, None)),
        ([A], ECHO, {}, (True, False, "a")),
        (NAMED, INFER, {}, (True, True, None)),
        (NAMED, INFER, {"application": "App"}, (True, False, "a")),
        (NAMED, f"{KSERVE}/ServerLive", {}, (True, False, None)),
        (PREFIXED, f"/q{INFER}", {"application": "x"}, (True, False, "b")),
    ],
)
def test_what_is_known_of_a_call_before_its_message(
    routes: Sequence[Route], path: str, metadata: dict[str, str], known: tuple[bool, bool, str | None]
) -> None:
    """Whether its application is known, whether its message is needed, and the target of a user's own service."""

    def rule(router: Router, call: Call) -> tuple[bool, bool, str | None]:
        return router.is_known(call), router.names_model(call), name_of(router.known_target(call))

    assert decide(routes, path, metadata, rule) == known


@pytest.mark.parametrize(
    ("routes", "path", "metadata", "server", "of_model_b"),
    [
        ([A, B], f"{KSERVE}/ServerReady", {}, None, "b"),
        ([A, B], f"{KSERVE}/ServerReady", {"application": "a"}, "a", "a"),
        ([A], f"{KSERVE}/ServerReady", {}, "a", "a"),
        (LISTED, f"{KSERVE}/ServerReady", {}, "a", None),
        (PREFIXED, "/p/ServerReady", {}, "a", "a"),
    ],
)
def test_whom_a_question_about_a_server_or_a_model_means(
    routes: Sequence[Route], path: str, metadata: dict[str, str], server: str | None, of_model_b: str | None
) -> None:
    def rule(router: Router, call: Call) -> Any:
        return name_of(router.of_server(call)), name_of(router.by_model(call, "b"))

    assert decide(routes, path, metadata, rule) == (server, of_model_b)
