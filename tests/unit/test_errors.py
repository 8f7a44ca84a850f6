"""The error tree is as drawn, and every error keeps its name across a hop."""

import json
import re
from collections.abc import Iterator

import httpx
import pytest

from contract import errors
from contract.errors import InferenceError, ServiceUnavailable, TaskNotFound, error_classes, error_from_body
from contract.private_client import error_of

GRPC_CODES = {
    *("CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
    *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
}


def draw(cls: type[InferenceError], lead: str = "") -> Iterator[str]:
    children = cls.__subclasses__()
    for child in children:
        is_last = child is children[-1]
        yield f"{lead}{'└── ' if is_last else '├── '}{child.__name__}"
        yield from draw(child, lead + ("    " if is_last else "│   "))


def test_the_drawn_tree_is_the_tree_of_classes() -> None:
    drawn = re.findall(r"^    (\S.*|│.*)$", errors.__doc__ or "", re.MULTILINE)
    assert drawn == ["InferenceError", *draw(InferenceError)]
    names = [re.sub(r"[^A-Za-z]", "", line) for line in drawn]
    assert names == [cls.__name__ for cls in error_classes()]


@pytest.mark.parametrize("cls", list(error_classes()), ids=lambda cls: cls.__name__)
def test_an_error_keeps_its_class_codes_and_fields_across_a_hop(cls: type[InferenceError]) -> None:
    sent = cls("what, where and what to do", reason="exit_code", position=3, nothing=None)
    body = json.loads(json.dumps(sent.to_body()))
    assert body == {
        "error": cls.__name__,
        "detail": "what, where and what to do",
        "reason": "exit_code",
        "position": 3,
    }
    received = error_from_body(body, cls.http_status)
    assert type(received) is cls
    assert (received.detail, received.fields) == (sent.detail, sent.fields)
    assert (received.http_status, received.grpc_code) == (cls.http_status, cls.grpc_code)


@pytest.mark.parametrize("cls", list(error_classes()), ids=lambda cls: cls.__name__)
def test_an_error_has_codes_that_exist_and_a_message_for_people(cls: type[InferenceError]) -> None:
    assert 400 <= cls.http_status < 600
    assert cls.grpc_code in GRPC_CODES
    assert cls.__doc__ is not None
    assert "\n" not in cls().detail
    assert cls().detail.endswith(".")
    assert str(cls()) == cls().detail


@pytest.mark.parametrize("cls", list(error_classes()), ids=lambda cls: cls.__name__)
def test_a_body_that_is_not_ours_becomes_an_error_of_its_status(cls: type[InferenceError]) -> None:
    received = error_from_body({}, cls.http_status)
    assert received.http_status == cls.http_status
    assert received.detail == f"the server answered {cls.http_status}"


def test_a_status_that_no_class_owns_is_an_error_of_the_server() -> None:
    for body in ({}, {"error": "Nonsense", "detail": ["no", "text"]}, {"error": 7}):
        received = error_from_body(body, 418)
        assert type(received) is InferenceError
        assert "418" in received.detail


def test_the_customers_codes_are_what_they_were_promised_to_be() -> None:
    promised = {"ModelNotFound": 550, "TaskPending": 551, "TaskFailed": 552, "OutputMissing": 553, "TaskNotFound": 554}
    assert {cls.__name__: cls.http_status for cls in error_classes() if cls.http_status >= 550} == promised
    assert issubclass(errors.TaskRecordNotFound, TaskNotFound)


@pytest.mark.parametrize(
    ("status", "cls"), [(404, InferenceError), (409, InferenceError), (500, InferenceError), (502, ServiceUnavailable)]
)
def test_what_a_proxy_answers_is_no_word_about_the_task(status: int, cls: type[InferenceError]) -> None:
    assert type(error_of(httpx.Response(status, text="<html>a proxy's page</html>"))) is cls
    assert type(error_of(httpx.Response(status, json={"message": "a proxy's words"}))) is cls
