"""What a caller's metadata says, and what of it a replica gets."""

import uuid

import pytest

from grpc_gateway.headers import Headers

ID = ("request_id", "r")


@pytest.mark.parametrize(
    ("given", "forwarded"),
    [
        ([ID], [ID]),
        (
            [ID, ("mine", "1"), ("mine", "2"), ("mine-bin", b"\xff")],
            [("mine", "1"), ("mine", "2"), ("mine-bin", b"\xff"), ID],
        ),
        # Routing, tracing and restricted keys are of interest to a replica, too.
        (
            [ID, ("application", "a"), ("traceparent", "00-1"), ("triton-grpc-protocol-k", "v")],
            [("application", "a"), ("traceparent", "00-1"), ("triton-grpc-protocol-k", "v"), ID],
        ),
        (
            [ID, ("multiplexed_model_id", "m"), ("session_id", "s")],
            [("multiplexed_model_id", "m"), ("session_id", "s"), ID],
        ),
        # Keys stay here, and nobody but the platform sets its own names.
        ([ID, ("x-api-key", "k"), ("authorization", "Bearer k"), ("x-caller-key", "k"), ("x-door-policy", "p")], [ID]),
        ([ID, ("x-is-user", "root"), ("x-island", "1")], [("x-island", "1"), ID]),
        # What describes the connection to the gateway is not about the call.
        (
            [ID, ("user-agent", "u"), ("host", "h"), ("te", "trailers"), ("content-type", "c"), (":path", "/p")],
            [ID],
        ),
        ([ID, ("grpc-timeout", "1S"), ("grpc-encoding", "gzip"), ("accept-encoding", "gzip")], [ID]),
        # One request id, the first.
        ([ID, ("request_id", "second")], [ID]),
    ],
)
def test_what_a_replica_gets(given: list[tuple[str, str | bytes]], forwarded: list[tuple[str, str | bytes]]) -> None:
    assert Headers(given).forward == forwarded


@pytest.mark.parametrize("given", ["", "r" * 1025])
def test_a_request_id_that_is_missing_or_too_long_is_made_here(given: str) -> None:
    headers = Headers([("request_id", given)])
    assert str(uuid.UUID(headers.request_id)) == headers.request_id
    assert headers.forward == [("request_id", headers.request_id)]
    assert Headers([]).request_id != Headers([]).request_id


def test_a_request_id_of_any_other_length_is_the_callers() -> None:
    assert Headers([("request_id", "r" * 1024)]).request_id == "r" * 1024


@pytest.mark.parametrize(
    ("given", "application", "model", "session", "key"),
    [
        ([], "", "", "", None),
        ([("application", "a"), ("multiplexed_model_id", "m"), ("session_id", "s")], "a", "m", "s", None),
        ([("application", "first"), ("application", "second")], "first", "", "", None),
        ([("application", b"bytes")], "", "", "", None),
        ([("x-api-key", "k"), ("authorization", "Bearer other")], "", "", "", "k"),
        ([("authorization", "bearer k")], "", "", "", "k"),
        ([("authorization", "Basic k")], "", "", "", None),
    ],
)
def test_what_the_gateway_reads(
    given: list[tuple[str, str | bytes]], application: str, model: str, session: str, key: str | None
) -> None:
    headers = Headers(given)
    assert (headers.application, headers.multiplexed_model_id, headers.session_id) == (application, model, session)
    assert headers.key == key
    assert headers.get("nothing") == ""
