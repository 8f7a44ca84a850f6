"""Clients of elastic distributed inference at the gateway: generated from its proto, against replicas of real grpc."""

import base64
import queue
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from contract import tokens
from contract.tokens import Claims, sign_token, stream_key, verify_token
from tests.integration.contract_harness import KEY, KEY_ID, KEY_SECRET, OWNER, STREAM_URL, run_contract_gateway
from tests.integration.grpc_harness import TOKEN, RunningGateway, route
from tests.labeler import Replica, running_replica
from tests.stubs import OWN, load_stubs

SOON_S = 60
"""Far longer than an answer takes, far shorter than for ever."""
STUBS: Any = load_stubs(OWN, "stream")
USERPASSWD = base64.b64encode(f"{KEY_ID}:{KEY_SECRET}".encode()).decode()


class Kernel(STUBS.services.InferenceServicer):  # type: ignore[misc]
    """Verifies the token as a replica of `model` does, then gives data back in capitals."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.tokens: list[str] = []

    async def stream_infer(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            if request.WhichOneof("request_oneof") == "token":
                verify_token(stream_key(TOKEN, self.model), request.token)
                self.tokens.append(request.token)
            elif request.data == b"stop":
                await context.abort(grpc.StatusCode.OUT_OF_RANGE, "the kernel ended")
            else:
                yield STUBS.messages.Response(data=request.data.upper())


@pytest.fixture
def kernel() -> Kernel:
    return Kernel("darkflow")


@pytest.fixture
def replica(kernel: Kernel) -> Iterator[Replica]:
    with running_replica(lambda server: STUBS.services.add_InferenceServicer_to_server(kernel, server)) as replica:
        yield replica


@pytest.fixture
def gateway(replica: Replica) -> Iterator[RunningGateway]:
    other = route("other", replica.address, protocol="redhare")
    with run_contract_gateway(route("darkflow", replica.address, protocol="redhare", prefix="dark"), other) as gateway:
        yield gateway


@pytest.fixture
def strict_gateway(replica: Replica) -> Iterator[RunningGateway]:
    with run_contract_gateway(route("darkflow", replica.address, protocol="redhare"), requires_key=True) as gateway:
        yield gateway


def authenticate(gateway: RunningGateway, metadata: Any = (), **attributes: str) -> Any:
    request = STUBS.messages.AuthRequest()
    request.attributes.update({"model_name": "darkflow", **attributes})
    return STUBS.services.InferenceStub(gateway.channel).auth(request, timeout=SOON_S, metadata=metadata)


def token_for(model: str, *, expires_in_s: float = 3600, key: bytes | None = None) -> str:
    return sign_token(key or stream_key(TOKEN, model), Claims(model, None, int(time.time() + expires_in_s)))


def shown(token: str) -> Any:
    return STUBS.messages.Request(token=token)


def data(content: bytes) -> Any:
    return STUBS.messages.Request(data=content)


class OpenStream:
    """A stream whose sending side stays open until `end`."""

    def __init__(self, gateway: RunningGateway, *requests: Any, prefix: str = "") -> None:
        self._requests: queue.Queue[Any] = queue.Queue()
        for request in requests:
            self._requests.put(request)
        start = gateway.channel.stream_stream(
            f"{prefix}/redhare.Inference/stream_infer",
            request_serializer=lambda message: message if isinstance(message, bytes) else message.SerializeToString(),
            response_deserializer=STUBS.messages.Response.FromString,
        )
        self.call: Any = start(iter(self._requests.get, None), timeout=SOON_S)

    def send(self, request: Any) -> None:
        self._requests.put(request)

    def receive(self) -> bytes:
        return next(self.call).data

    def end(self) -> None:
        self._requests.put(None)

    def refusal(self) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.RpcError):
            next(self.call)
        self.end()
        return self.call.code(), self.call.details()


def refusal_of(error: pytest.ExceptionInfo[grpc.RpcError]) -> tuple[grpc.StatusCode, str]:
    return error.value.code(), error.value.details()  # type: ignore[attr-defined]


def test_the_public_clients_steps_work_one_after_the_other(gateway, kernel):
    answer = authenticate(gateway, userpasswd=USERPASSWD)
    assert answer.url == STREAM_URL
    stream = OpenStream(gateway, shown(answer.token))
    for content in (b"a", b"b", b""):
        stream.send(data(content))
        assert stream.receive() == content.upper()
    stream.end()
    assert list(stream.call) == []
    assert stream.call.code() is grpc.StatusCode.OK
    assert kernel.tokens == [answer.token]
    assert any(key == "request_id" for key, _ in stream.call.trailing_metadata())


def test_userpasswd_as_a_shell_writes_it_is_accepted(strict_gateway):
    wrapped = subprocess.run(
        ["base64", "-w", "76"], input=f"{KEY_ID}:{KEY_SECRET}", capture_output=True, text=True, check=True
    ).stdout
    assert wrapped.count("\n") == 2
    assert authenticate(strict_gateway, userpasswd=wrapped).token
    assert authenticate(strict_gateway, userpasswd=USERPASSWD, password="Admin", nonsense="x").token


def test_a_token_says_whose_key_it_was_made_with_and_ends(strict_gateway):
    before = time.time()
    token = authenticate(strict_gateway, userpasswd=USERPASSWD).token
    claims = verify_token(stream_key(TOKEN, "darkflow"), token)
    assert (claims.subject, claims.owner) == ("darkflow", OWNER)
    assert claims.expires_at is not None
    assert int(before) + 3600 <= claims.expires_at <= time.time() + 3600


def test_a_key_serves_as_token_and_in_the_metadata_too(strict_gateway):
    assert authenticate(strict_gateway, token=KEY).token
    assert authenticate(strict_gateway, metadata=(("x-api-key", KEY),)).token


def test_where_keys_are_required_the_token_alone_opens_the_stream(strict_gateway):
    stream = OpenStream(strict_gateway, shown(authenticate(strict_gateway, token=KEY).token), data(b"a"))
    assert stream.receive() == b"A"
    stream.end()


def test_a_stream_token_is_given_back_as_it_is_and_not_for_longer(gateway):
    token = token_for("darkflow", expires_in_s=5)
    assert authenticate(gateway, token=token).token == token


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def owner_of(token: str) -> str | None:
    return verify_token(stream_key(TOKEN, "darkflow"), token).owner


@pytest.mark.parametrize(
    ("attributes", "owner"),
    [
        ({}, None),
        ({"userpasswd": encoded("Admin:Admin")}, None),
        ({"user_name": "Admin", "password": "Admin"}, None),
        ({"user_name": "Admin"}, None),
        ({"password": "Admin"}, None),
        ({"userpasswd": USERPASSWD}, OWNER),
        ({"user_name": KEY_ID, "password": KEY_SECRET}, OWNER),
    ],
)
def test_in_the_open_mode_any_name_and_password_pass_and_a_key_still_counts(gateway, attributes, owner):
    assert owner_of(authenticate(gateway, **attributes).token) == owner


def test_in_the_open_mode_what_is_no_name_and_password_is_refused(gateway):
    for attributes in ({"userpasswd": "@"}, {"token": "is_nonsense"}):
        with pytest.raises(grpc.RpcError) as error:
            authenticate(gateway, **attributes)
        assert refusal_of(error)[0] is grpc.StatusCode.UNAUTHENTICATED


def test_name_and_password_may_come_as_two_attributes(strict_gateway):
    assert owner_of(authenticate(strict_gateway, user_name=KEY_ID, password=KEY_SECRET).token) == OWNER
    # As IBM's own page has it: userpasswd goes before a password that stands beside it.
    assert owner_of(authenticate(strict_gateway, userpasswd=USERPASSWD, password="Admin").token) == OWNER


@pytest.mark.parametrize(
    ("attributes", "code", "says"),
    [
        ({}, "UNAUTHENTICATED", "this server wants a key"),
        ({"userpasswd": encoded(f"{KEY_ID}:{'6' * 64}")}, "UNAUTHENTICATED", "not known"),
        ({"userpasswd": encoded(f"alice:{KEY_SECRET}")}, "UNAUTHENTICATED", "not known"),
        ({"userpasswd": encoded(KEY_ID)}, "UNAUTHENTICATED", "no colon"),
        ({"userpasswd": f"@{USERPASSWD}"}, "UNAUTHENTICATED", "is not base64"),
        ({"userpasswd": base64.b64encode(b"\xff\xfe:x").decode()}, "UNAUTHENTICATED", "is not base64"),
        ({"userpasswd": USERPASSWD[:-2]}, "UNAUTHENTICATED", "is not base64"),
        ({"user_name": "Admin", "password": "Admin"}, "UNAUTHENTICATED", "not known"),
        ({"user_name": KEY_ID}, "UNAUTHENTICATED", "not known"),
        ({"password": KEY_SECRET}, "UNAUTHENTICATED", "this server wants a key"),
        ({"token": "is_nonsense"}, "UNAUTHENTICATED", "not known"),
        ({"token": "a.b"}, "UNAUTHENTICATED", "The token is refused"),
        ({"token": token_for("darkflow", expires_in_s=-1)}, "UNAUTHENTICATED", "has expired"),
        ({"token": token_for("darkflow", key=b"forged")}, "UNAUTHENTICATED", "was not issued here"),
        ({"token": token_for("else")}, "PERMISSION_DENIED", "is for the model 'else'"),
        ({"model_name": "", "userpasswd": USERPASSWD}, "INVALID_ARGUMENT", "model_name is missing"),
        ({"model_name": "nobody", "userpasswd": USERPASSWD}, "NOT_FOUND", "serves the model 'nobody'"),
        # Who has no key does not learn which models there are.
        ({"model_name": "nobody"}, "UNAUTHENTICATED", "this server wants a key"),
    ],
)
def test_what_auth_refuses_is_refused_with_its_reason(strict_gateway, attributes, code, says):
    with pytest.raises(grpc.RpcError) as error:
        authenticate(strict_gateway, **attributes)
    assert refusal_of(error)[0].name == code
    assert says in refusal_of(error)[1]


def test_a_key_that_may_not_submit_gets_no_token(replica):
    with (
        run_contract_gateway(route("darkflow", replica.address), requires_key=True, scopes=["models"]) as gateway,
        pytest.raises(grpc.RpcError) as error,
    ):
        authenticate(gateway, userpasswd=USERPASSWD)
    assert refusal_of(error)[0] is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("first", "code", "says"),
    [
        (data(b"x"), "UNAUTHENTICATED", "is its token, not data"),
        (STUBS.messages.Request(), "UNAUTHENTICATED", "is its token, not data"),
        (shown(""), "UNAUTHENTICATED", "The token is refused"),
        (shown("nonsense"), "UNAUTHENTICATED", "The token is refused"),
        (shown(base64.b64encode(b"[" * 300_000).decode()), "UNAUTHENTICATED", "The token is refused"),
        (shown("\u00e9.\u00e9"), "UNAUTHENTICATED", "The token is refused"),
        (shown(token_for("darkflow", key=b"forged")), "UNAUTHENTICATED", "was not issued here"),
        (shown(token_for("darkflow", key=stream_key(TOKEN, "other"))), "UNAUTHENTICATED", "not issued here"),
        (shown(token_for("darkflow", expires_in_s=-1)), "UNAUTHENTICATED", "has expired"),
        (shown(token_for("gone")), "NOT_FOUND", "'gone' is not deployed any more"),
        (b"\xff\xff", "INVALID_ARGUMENT", "no redhare.Request"),
    ],
)
def test_a_stream_without_a_good_token_is_ended_though_the_client_goes_on_sending(gateway, kernel, first, code, says):
    stream = OpenStream(gateway, first)
    refused, details = stream.refusal()
    assert (refused.name, kernel.tokens) == (code, [])
    assert says in details


def test_a_stream_that_ends_before_its_token_is_refused(gateway):
    stream = OpenStream(gateway)
    stream.end()
    assert stream.refusal()[0] is grpc.StatusCode.UNAUTHENTICATED


def test_a_stream_that_says_nothing_does_not_stay_open(gateway, monkeypatch):
    monkeypatch.setattr("grpc_gateway.protocols.redhare.TOKEN_PATIENCE_S", 0.2)
    assert OpenStream(gateway).refusal()[0] is grpc.StatusCode.UNAUTHENTICATED


def test_a_token_of_another_model_does_not_open_the_prefix_of_this_one(gateway):
    assert OpenStream(gateway, shown(token_for("other")), prefix="/dark").refusal()[0].name == "PERMISSION_DENIED"
    stream = OpenStream(gateway, shown(token_for("darkflow")), data(b"x"), prefix="/dark")
    assert stream.receive() == b"X"
    stream.end()


def test_a_later_token_is_checked_without_an_answer_and_a_bad_one_ends_the_stream(gateway, kernel):
    first, second = token_for("darkflow"), token_for("darkflow", expires_in_s=7200)
    stream = OpenStream(gateway, shown(first), data(b"a"), shown(second), data(b"b"))
    assert (stream.receive(), stream.receive()) == (b"A", b"B")
    assert kernel.tokens == [first, second]
    stream.send(shown(token_for("other")))
    assert stream.refusal()[0] is grpc.StatusCode.UNAUTHENTICATED
    assert kernel.tokens == [first, second]


def test_a_stream_outlives_its_token(gateway, monkeypatch):
    token = token_for("darkflow", expires_in_s=3600)
    stream = OpenStream(gateway, shown(token), data(b"a"))
    assert stream.receive() == b"A"
    later = time.time() + 3600
    monkeypatch.setattr(tokens, "time", SimpleNamespace(time=lambda: later))
    assert OpenStream(gateway, shown(token)).refusal()[0] is grpc.StatusCode.UNAUTHENTICATED
    stream.send(data(b"b"))
    assert stream.receive() == b"B"
    stream.end()


def test_the_replicas_own_end_of_the_stream_arrives_while_the_client_goes_on_sending(gateway):
    stream = OpenStream(gateway, shown(token_for("darkflow")), data(b"stop"))
    assert stream.refusal() == (grpc.StatusCode.OUT_OF_RANGE, "the kernel ended")


def test_auth_works_without_a_replica_and_the_stream_says_that_there_is_none():
    with run_contract_gateway(route("darkflow", protocol="redhare", start_timeout_s=1)) as gateway:
        token = authenticate(gateway).token
        assert OpenStream(gateway, shown(token)).refusal()[0] is grpc.StatusCode.UNAVAILABLE


def test_a_token_lives_as_long_as_the_operator_says(replica):
    before = time.time()
    with run_contract_gateway(route("darkflow", replica.address), token_lifetime_s=300.0) as gateway:
        claims = verify_token(stream_key(TOKEN, "darkflow"), authenticate(gateway).token)
    assert claims.expires_at is not None
    assert int(before) + 300 <= claims.expires_at <= time.time() + 300


def test_without_an_address_for_streams_auth_says_what_to_set(replica):
    with (
        run_contract_gateway(route("darkflow", replica.address), stream_url=None) as gateway,
        pytest.raises(grpc.RpcError) as error,
    ):
        authenticate(gateway)
    assert refusal_of(error)[0] is grpc.StatusCode.FAILED_PRECONDITION
    assert "GRPC_STREAM_URL" in refusal_of(error)[1]


def test_a_model_that_is_not_shared_with_a_caller_gives_no_token_and_takes_none(replica: Replica) -> None:
    users = ["ada"]
    with run_contract_gateway(route("darkflow", replica.address, protocol="redhare", users=users)) as gateway:
        with pytest.raises(grpc.RpcError) as refused:
            authenticate(gateway, userpasswd=USERPASSWD)
        assert refusal_of(refused)[0] is grpc.StatusCode.PERMISSION_DENIED
        # One from before the model was restricted.
        code, text = OpenStream(gateway, shown(token_for("darkflow"))).refusal()
        assert (code, "is for certain owners" in text) == (grpc.StatusCode.PERMISSION_DENIED, True)
