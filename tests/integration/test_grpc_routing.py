"""Where calls go, and in which words they are refused: prefix, application, the model in the message, the only one."""

import grpc
import pytest

from kit.protobuf import bytes_field, text_field, varint_field
from tests.integration.contract_harness import KEY, OWNER, run_contract_gateway
from tests.integration.grpc_backend import Backend
from tests.integration.grpc_harness import RunningGateway, route, status_of, trailers_of

CODE = grpc.StatusCode
PREDICTION = "/tensorflow.serving.PredictionService"
KSERVE = "/inference.GRPCInferenceService"
PING = "Ping /ray.serve.RayServeAPIService/ListApplications for available applications."


def spec(name: str, version: int | None = None) -> bytes:
    """TensorFlow's ModelSpec as field 1."""
    return bytes_field(1, text_field(1, name) + (b"" if version is None else bytes_field(2, varint_field(1, version))))


def served_by(gateway: RunningGateway, path: str, message: bytes = b"x", **metadata: str) -> str:
    """Which backend answers."""
    answer, rpc = gateway.unary(path).with_call(message, metadata=tuple(metadata.items()), timeout=60)
    assert answer == message
    return trailers_of(rpc)["served-by"]


def refused(gateway: RunningGateway, path: str, message: bytes = b"", **metadata: str) -> tuple[grpc.StatusCode, str]:
    error = status_of(lambda: gateway.unary(path)(message, metadata=tuple(metadata.items()), timeout=60))
    assert "request_id" in trailers_of(error)
    return error.code(), error.details()


def test_before_the_first_table_nothing_is_known(gateway: RunningGateway) -> None:
    for path in ("/user.Own/Echo", f"{PREDICTION}/Predict", "/p/user.Own/Echo", f"{KSERVE}/ModelInfer"):
        assert refused(gateway, path) == (CODE.UNAVAILABLE, "Route table is not populated yet.")


def test_a_prefix_goes_before_everything_else(gateway: RunningGateway, one: Backend, two: Backend) -> None:
    gateway.give(
        route("a", one, prefix="service1", protocol="tensorflow"), route("b", two, prefix="service2", protocol="kserve")
    )
    # Both forms, whatever application and message say.
    told = {"application": "b"}
    assert served_by(gateway, "/service1/Predict", spec("b"), **told) == "one"
    assert served_by(gateway, "/service1/tensorflow.serving.PredictionService/Predict", spec("b"), **told) == "one"
    assert served_by(gateway, "/service2/ModelInfer", text_field(1, "a")) == "two"
    assert served_by(gateway, "/service2/user.Own/Echo") == "two"
    assert one.paths() == [f"{PREDICTION}/Predict"] * 2
    assert two.paths()[:1] == [f"{KSERVE}/ModelInfer"]


def test_an_unknown_prefix_is_not_found(gateway: RunningGateway, one: Backend, two: Backend) -> None:
    gateway.give(route("a", one, prefix="service1"), route("b", two))
    assert refused(gateway, "/service9/user.Own/Echo") == (CODE.NOT_FOUND, "No deployment has the prefix 'service9'.")
    assert refused(gateway, "/service9/Predict") == (CODE.NOT_FOUND, "No deployment has the prefix 'service9'.")


def test_a_bare_method_needs_a_default_service(gateway: RunningGateway, one: Backend) -> None:
    gateway.give(route("a", one, prefix="p"))
    code, text = refused(gateway, "/p/Echo")
    assert code is CODE.UNIMPLEMENTED
    assert "'a' has no default_service" in text
    gateway.give(route("a", one, prefix="p", default_service="user.Own"))
    assert served_by(gateway, "/p/Echo") == "one"
    assert one.paths() == ["/user.Own/Echo"]


def test_application_names_a_deployment_exactly(gateway: RunningGateway, one: Backend, two: Backend) -> None:
    gateway.give(route("a", one, application="App"), route("b", two))
    assert served_by(gateway, "/user.Own/Echo", application="App") == "one"
    assert served_by(gateway, "/user.Own/Echo", application="b") == "two"
    assert refused(gateway, "/user.Own/Echo", application="app") == (
        CODE.NOT_FOUND,
        f"Application 'app' not found. {PING}",
    )
    for nothing in ({}, {"application": ""}):
        assert refused(gateway, "/user.Own/Echo", **nothing) == (
            CODE.NOT_FOUND,
            f"Application metadata not set. {PING}",
        )
    # A service without a package is one, though it has no dot.
    assert refused(gateway, "/Greeter/Hello") == (CODE.NOT_FOUND, f"Application metadata not set. {PING}")


def test_the_only_application_gets_what_names_no_other(gateway: RunningGateway, one: Backend) -> None:
    gateway.give(route("a", one))
    assert served_by(gateway, "/user.Own/Echo") == "one"
    assert served_by(gateway, "/user.Own/Echo", application="a") == "one"
    # Perhaps it was undeployed: the model that is left would compute something else.
    no_other = (CODE.NOT_FOUND, f"Application 'b' not found. {PING}")
    for path, message in (
        ("/user.Own/Echo", b""),
        (f"{PREDICTION}/Predict", spec("a")),
        (f"{KSERVE}/ModelInfer", text_field(1, "a")),
    ):
        assert refused(gateway, path, message, application="b") == no_other


def test_without_any_deployment_calls_are_not_found(gateway: RunningGateway) -> None:
    gateway.give()
    assert refused(gateway, "/user.Own/Echo") == (CODE.NOT_FOUND, f"Application metadata not set. {PING}")
    assert refused(gateway, "/user.Own/Echo", application="x")[1] == f"Application 'x' not found. {PING}"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        *((f"{PREDICTION}/{name}", spec("mb")) for name in ("Predict", "GetModelMetadata", "Classify", "Regress")),
        (f"{PREDICTION}/MultiInference", bytes_field(1, spec("mb")) + bytes_field(1, spec("ma"))),
        ("/tensorflow.serving.ModelService/GetModelStatus", spec("mb")),
        *(
            (f"{KSERVE}/{name}", text_field(1, "mb"))
            for name in ("ModelInfer", "ModelMetadata", "ModelConfig", "ModelStatistics")
        ),
    ],
)
def test_a_message_names_the_model(
    gateway: RunningGateway, one: Backend, two: Backend, path: str, message: bytes
) -> None:
    gateway.give(route("a", one, model_names=["ma"]), route("b", two, model_names=["mb", "mc"]))
    assert served_by(gateway, path, message) == "two"
    # An application says more than a message.
    assert served_by(gateway, path, message, application="a") == "one"


def test_loading_a_model_names_it_in_another_field(gateway: RunningGateway, one: Backend, two: Backend) -> None:
    gateway.give(route("a", one, allow_admin=True), route("b", two, allow_admin=True))
    assert served_by(gateway, f"{KSERVE}/RepositoryModelLoad", text_field(1, "a") + text_field(2, "b")) == "two"


def test_unknown_models_are_refused_in_the_words_of_tensorflow(
    gateway: RunningGateway, one: Backend, two: Backend
) -> None:
    gateway.give(route("a", one), route("b", two))
    predict = f"{PREDICTION}/Predict"
    assert refused(gateway, predict, spec("x")) == (CODE.NOT_FOUND, "Servable not found for request: Latest(x)")
    assert refused(gateway, predict, spec("x", 5)) == (
        CODE.NOT_FOUND,
        "Servable not found for request: Specific(x, 5)",
    )
    assert refused(gateway, predict, spec("")) == (CODE.INVALID_ARGUMENT, "ModelSpec has no name specified.")
    assert refused(gateway, predict, b"") == (CODE.INVALID_ARGUMENT, "Missing ModelSpec")
    assert refused(gateway, "/tensorflow.serving.ModelService/GetModelStatus", spec("x")) == (
        CODE.NOT_FOUND,
        "Could not find any versions of model x",
    )


def test_unknown_models_are_refused_in_the_words_of_triton(gateway: RunningGateway, one: Backend, two: Backend) -> None:
    gateway.give(route("a", one), route("b", two))
    infer = f"{KSERVE}/ModelInfer"
    assert refused(gateway, infer, text_field(1, "x")) == (
        CODE.NOT_FOUND,
        "Request for unknown model: 'x' is not found",
    )
    assert refused(gateway, infer, text_field(1, "x") + text_field(2, "9")) == (
        CODE.NOT_FOUND,
        "Request for unknown model: 'x' version 9 is not found",
    )


def test_statistics_of_no_model_are_those_of_the_only_server(
    gateway: RunningGateway, one: Backend, two: Backend
) -> None:
    statistics = f"{KSERVE}/ModelStatistics"
    gateway.give(route("a", one, protocol="kserve", model_names=["m"]), route("b", two))
    assert served_by(gateway, statistics, b"") == "one"
    gateway.give(route("a", one, protocol="kserve"), route("b", two, protocol="kserve"))
    code, details = refused(gateway, statistics, b"")
    assert code is CODE.INVALID_ARGUMENT
    assert "2 (a, b)" in details
    assert served_by(gateway, statistics, b"", application="b") == "two"


def test_the_only_deployment_judges_names_itself_unless_they_are_listed(gateway: RunningGateway, one: Backend) -> None:
    gateway.give(route("a", one))
    assert served_by(gateway, f"{KSERVE}/ModelInfer", text_field(1, "other")) == "one"
    gateway.give(route("a", one, model_names=["known"]))
    assert refused(gateway, f"{KSERVE}/ModelInfer", text_field(1, "other"))[0] is CODE.NOT_FOUND
    assert served_by(gateway, f"{KSERVE}/ModelInfer", text_field(1, "known")) == "one"


@pytest.mark.parametrize(
    "path",
    [
        f"{KSERVE}/RepositoryModelLoad",
        f"{KSERVE}/RepositoryModelUnload",
        f"{KSERVE}/SystemSharedMemoryRegister",
        f"{KSERVE}/CudaSharedMemoryStatus",
        f"{KSERVE}/TraceSetting",
        f"{KSERVE}/LogSettings",
        f"{KSERVE}/NobodyKnows",
        "/tensorflow.serving.ModelService/HandleReloadConfigRequest",
    ],
)
def test_calls_that_change_a_server_are_passed_on_only_where_that_is_allowed(
    gateway: RunningGateway, one: Backend, path: str
) -> None:
    name = path.rpartition("/")[2]
    message = text_field(2, "a")
    gateway.give(route("a", one, prefix="p"))
    for way in (path, f"/p{path}"):
        assert refused(gateway, way, message) == (
            CODE.UNIMPLEMENTED,
            f"{name} is passed on only where a deployment sets allow_admin.",
        )
    assert one.seen == []
    gateway.give(route("a", one, allow_admin=True))
    assert served_by(gateway, path, message) == "one"


def test_nobody_but_a_consumer_runs_tasks_in_a_replica(gateway: RunningGateway, one: Backend) -> None:
    gateway.give(route("a", one, prefix="p", allow_admin=True, serves_tasks=True))
    for way in ("/inferenceserver.Tasks/Run", "/p/inferenceserver.Tasks/Run"):
        code, details = refused(gateway, way, b"")
        assert code is CODE.UNIMPLEMENTED
        assert "POST /api/tasks/" in details
    assert one.seen == []


def test_a_restricted_key_closes_its_categories(gateway: RunningGateway, one: Backend) -> None:
    keys = [{"categories": ["inference", "statistics"], "key": "infer-key", "value": "open"}]
    gateway.give(route("a", one, restricted_keys=keys, prefix="p"))
    header = "triton-grpc-protocol-infer-key"
    expected = (CODE.UNAVAILABLE, f"This protocol is restricted, expecting header '{header}'")
    message = text_field(1, "a")
    for path in (f"{KSERVE}/ModelInfer", f"{KSERVE}/ModelStatistics", f"/p{KSERVE}/ModelInfer"):
        assert refused(gateway, path, message) == expected
        assert refused(gateway, path, message, **{header: "wrong"}) == expected
        assert served_by(gateway, path, message, **{header: "open"}) == "one"
    assert served_by(gateway, f"{KSERVE}/ModelConfig", message) == "one"


def test_a_model_that_is_shared_answers_the_owners_it_is_shared_with_alone(one: Backend, two: Backend) -> None:
    shared = route("shared", one, application="shared", users=["ada", OWNER])
    other = route("other", two, application="other", users=["ada"], protocol="kserve")
    with run_contract_gateway(shared, other) as gateway:
        key = {"x-api-key": KEY}
        assert served_by(gateway, "/user.Own/Echo", application="shared", **key) == "one"
        for path, metadata in (
            ("/user.Own/Echo", {"application": "shared"}),
            ("/user.Own/Echo", {"application": "other"} | key),
            (f"{KSERVE}/ModelInfer", key),
        ):
            code, text = refused(gateway, path, text_field(1, "other"), **metadata)
            assert code is CODE.PERMISSION_DENIED
            assert "is for certain owners" in text
        # One stream may name several models.
        stream = gateway.stream(f"{KSERVE}/ModelStreamInfer")
        error = status_of(lambda: list(stream(iter([text_field(1, "other")]), metadata=tuple(key.items()), timeout=60)))
        assert error.code() is CODE.PERMISSION_DENIED
        assert two.paths() == []
