"""What a door tells the private API, and what a caller may."""

import pytest

from contract.access import ANONYMOUS, Caller, DoorPolicy, Scope, read_key
from contract.errors import PermissionDenied
from public_api.settings import PublicApiSettings


@pytest.mark.parametrize("requires_key", [True, False])
@pytest.mark.parametrize("opens_models", [True, False])
def test_a_policy_arrives_as_it_was_sent(requires_key: bool, opens_models: bool) -> None:
    policy = DoorPolicy(requires_key=requires_key, opens_models=opens_models)
    assert DoorPolicy.from_header(policy.to_header()) == policy


@pytest.mark.parametrize("text", ["", "key=maybe", "keys=optional models=opened", "KEY=OPTIONAL"])
def test_a_policy_that_nobody_understands_opens_nothing(text: str) -> None:
    assert DoorPolicy.from_header(text) == DoorPolicy(requires_key=True, opens_models=False)


def test_a_door_that_says_nothing_is_one_of_the_time_before_keys() -> None:
    assert DoorPolicy.from_header(None) == DoorPolicy(requires_key=False, opens_models=True)


def test_admin_is_every_scope_but_consume_and_no_other_scope_is_another() -> None:
    for held in Scope:
        granted = {scope for scope in Scope if Caller("ada", frozenset({held})).may(scope)}
        assert granted == (set(Scope) - {Scope.CONSUME} if held is Scope.ADMIN else {held})
    assert [scope for scope in Scope if ANONYMOUS.may(scope)] == [Scope.SUBMIT]
    with pytest.raises(PermissionDenied, match="not you"):
        ANONYMOUS.require(Scope.MODELS, "not you")


@pytest.mark.parametrize("scope", Scope)
def test_submitting_needs_the_scope_submit_and_a_consumers_key_opens_no_door(scope: Scope) -> None:
    caller = Caller("ada", frozenset({scope}))
    if scope in (Scope.SUBMIT, Scope.ADMIN):
        caller.require_submit()
    else:
        with pytest.raises(PermissionDenied, match="lacks the scope submit"):
            caller.require_submit()
    if scope is Scope.CONSUME:
        with pytest.raises(PermissionDenied, match="opens no door"):
            caller.require_user()
    else:
        caller.require_user()


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({}, None),
        ({"x-api-key": "k"}, "k"),
        ({"x-api-key": ""}, ""),
        ({"x-api-key": " k "}, " k "),
        ({"authorization": "Bearer k"}, "k"),
        ({"authorization": "bEARER  k\t"}, "k"),
        ({"authorization": "Bearer k\xa0"}, "k\xa0"),
        ({"authorization": "Bearer"}, ""),
        ({"authorization": "Basic k"}, None),
        ({"authorization": "k"}, None),
        ({"x-api-key": "k", "authorization": "Bearer other"}, "k"),
        ({"x-api-key": "", "authorization": "Bearer other"}, ""),
        ({"x-caller-key": "k"}, None),
        ({"x-api-key": b"k", "authorization": b"Bearer k"}, None),
    ],
)
def test_a_key_is_read_as_it_came(headers: dict[str, str | bytes], key: str | None) -> None:
    assert read_key(headers) == key


@pytest.mark.parametrize(
    ("value", "required"), [("1", True), ("yes", True), ("", False), ("0", False), ("Off", False), ("false", False)]
)
def test_any_value_but_a_no_requires_keys(value: str, required: bool) -> None:
    variables = {"SERVICE_TOKEN": "a-service-token-of-the-tests", "REQUIRE_API_KEY": value}
    assert PublicApiSettings.load(variables).require_api_key is required
