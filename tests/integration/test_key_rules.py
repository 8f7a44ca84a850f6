"""Keys by HTTP: who may see, make and revoke which, on PostgreSQL and on SQLite, and through the door."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from contract.access import ANONYMOUS, Caller, Scope
from contract.errors import InvalidRequest, KeyNotFound, PermissionDenied, Unauthenticated
from contract.keys import KeyCreation, KeyListQuery, KeyQuotas, KeyRotation, KeyState
from contract.quotas import Quota
from inference_client import InferenceClient
from inference_client import errors as client_errors
from private_api.database import Database
from private_api.key_rules import list_visible_keys, make_key, revoke_visible_key, rotate_visible_key
from private_api.keys import check_key, create_key, list_keys, rotate_key
from private_api.quotas.limits import NO_LIMITS, Limits
from tests.integration.infer_harness import User, serve
from tests.integration.public_door import PLAIN, serve_door
from tests.running_api import RunningApi

DAY_S = 24 * 3600


def caller(database: Database, *scopes: Scope, owner: str = "ada", lifetime: timedelta | None = None) -> Caller:
    return check_key(database, create_key(database, owner=owner, scopes=scopes, lifetime=lifetime))


def wanted(
    *scopes: Scope, owner: str | None = None, lifetime_s: int | None = None, quotas: KeyQuotas | None = None
) -> KeyCreation:
    return KeyCreation(scopes=list(scopes), owner=owner, lifetime_s=lifetime_s, quotas=quotas or {})


def seen(database: Database, who: Caller, **query: object) -> list[str]:
    return [key.id for key in list_visible_keys(database, who, KeyListQuery.model_validate(query))]


def test_a_key_with_the_scope_keys_makes_lists_and_revokes_those_of_its_owner(database: Database) -> None:
    keeper = caller(database, Scope.KEYS, Scope.SUBMIT)
    stranger = caller(database, Scope.SUBMIT, owner="bob")
    made = make_key(database, keeper, wanted(Scope.SUBMIT, Scope.KEYS))
    assert (made.owner, made.scopes, made.expires_at, made.state) == ("ada", ["keys", "submit"], None, "valid")
    assert check_key(database, made.key) == Caller("ada", frozenset({Scope.SUBMIT, Scope.KEYS}))
    assert seen(database, keeper) == seen(database, keeper, owner="ada") == [keeper.key_id, made.id]
    revoke_visible_key(database, keeper, made.id)
    revoke_visible_key(database, keeper, made.id)
    assert [key.state for key in list_visible_keys(database, keeper, KeyListQuery())] == ["valid", "revoked"]
    # What is another owner's looks as if it did not exist.
    for hidden in (str(stranger.key_id), "0" * 16):
        with pytest.raises(KeyNotFound):
            revoke_visible_key(database, keeper, hidden)
    assert list_keys(database)[1].state is KeyState.VALID


@pytest.mark.parametrize("scope", [Scope.MODELS, Scope.OPERATE, Scope.ADMIN, Scope.CONSUME, Scope.SUBMIT])
def test_no_key_makes_one_that_may_do_more(database: Database, scope: Scope) -> None:
    keeper = caller(database, Scope.KEYS)
    with pytest.raises(PermissionDenied, match=scope):
        make_key(database, keeper, wanted(Scope.KEYS, scope))
    # A door may lend every caller the scope models; it lends it to nobody's keys.
    lent = Caller(keeper.owner, keeper.scopes | {Scope.MODELS}, keeper.key_id)
    with pytest.raises(PermissionDenied):
        make_key(database, lent, wanted(Scope.MODELS))
    assert len(list_keys(database)) == 1


def test_no_key_makes_one_that_outlives_it(database: Database) -> None:
    mortal = caller(database, Scope.KEYS, lifetime=timedelta(days=2))
    expires_at = list_keys(database)[0].expires_at
    assert make_key(database, mortal, wanted(Scope.KEYS)).expires_at == expires_at
    shorter = make_key(database, mortal, wanted(Scope.KEYS, lifetime_s=DAY_S)).expires_at
    assert expires_at is not None
    assert shorter is not None
    assert shorter < expires_at
    with pytest.raises(PermissionDenied, match="outlives"):
        make_key(database, mortal, wanted(Scope.KEYS, lifetime_s=3 * DAY_S))


def test_an_admin_has_the_keys_of_all_owners_and_makes_none_for_consumers(database: Database) -> None:
    admin = caller(database, Scope.ADMIN, owner="dan")
    theirs = caller(database, Scope.SUBMIT, owner="bob")
    made = make_key(database, admin, wanted(Scope.SUBMIT, Scope.OPERATE, owner="eve"))
    assert made.owner == "eve"
    assert seen(database, admin) == [admin.key_id, theirs.key_id, made.id]
    assert seen(database, admin, owner="bob") == [theirs.key_id]
    assert seen(database, admin, limit=2) + seen(database, admin, limit=2, after=theirs.key_id) == seen(database, admin)
    revoke_visible_key(database, admin, str(theirs.key_id))
    assert list_keys(database)[1].state is KeyState.REVOKED
    with pytest.raises(PermissionDenied, match="inference-server keys create"):
        make_key(database, admin, wanted(Scope.CONSUME))
    with pytest.raises(InvalidRequest, match="after"):
        seen(database, admin, after="0" * 16)


def test_the_keys_of_others_are_refused_without_the_scope(database: Database) -> None:
    keeper = caller(database, Scope.KEYS)
    with pytest.raises(PermissionDenied, match="scope admin"):
        seen(database, keeper, owner="bob")
    with pytest.raises(PermissionDenied, match="scope admin"):
        make_key(database, keeper, wanted(Scope.KEYS, owner="bob"))
    for refused, error in ((ANONYMOUS, Unauthenticated), (caller(database, Scope.OPERATE), PermissionDenied)):
        for act in (
            lambda who: seen(database, who),
            lambda who: make_key(database, who, wanted(Scope.SUBMIT)),
            lambda who: revoke_visible_key(database, who, str(keeper.key_id)),
        ):
            with pytest.raises(error):
                act(refused)


DEFAULTS: Limits = {**NO_LIMITS, Quota.QUEUED: 100, Quota.STORED: 1000}


def test_no_key_makes_one_that_may_have_more(database: Database) -> None:
    key = create_key(database, owner="ada", scopes=[Scope.KEYS], lifetime=None, quotas={Quota.QUEUED: 10})
    keeper = check_key(database, key)
    assert keeper.quotas == {Quota.QUEUED: 10}
    # What is not given is what the key has that makes it; and so it goes on.
    heir = make_key(database, keeper, wanted(Scope.KEYS, quotas={Quota.RUNNING: 2}), defaults=DEFAULTS)
    assert heir.quotas == {Quota.QUEUED: 10, Quota.RUNNING: 2}
    narrower = wanted(Scope.KEYS, quotas={Quota.QUEUED: 9, Quota.RUNNING: 1, Quota.STORED: 1000})
    assert make_key(database, check_key(database, heir.key), narrower, defaults=DEFAULTS).quotas == narrower.quotas
    for quota, limit in ((Quota.QUEUED, 11), (Quota.QUEUED, None), (Quota.STORED, 1001), (Quota.STORED, None)):
        with pytest.raises(PermissionDenied, match=f"may have more than itself: its own quotas are {quota} 10"):
            make_key(database, keeper, wanted(Scope.KEYS, quotas={quota: limit}), defaults=DEFAULTS)
    assert len(list_keys(database)) == 3


def test_an_admin_gives_what_it_likes(database: Database) -> None:
    key = create_key(database, owner="dan", scopes=[Scope.ADMIN], lifetime=None, quotas={Quota.QUEUED: 1})
    admin = check_key(database, key)
    given: KeyQuotas = {Quota.QUEUED: 1000, Quota.STORED: None}
    made = make_key(database, admin, wanted(Scope.SUBMIT, owner="eve", quotas=given), defaults=DEFAULTS)
    assert (made.quotas, check_key(database, made.key).quotas) == (given, given)
    assert make_key(database, admin, wanted(Scope.SUBMIT, owner="eve"), defaults=DEFAULTS).quotas == {}


def test_a_key_that_replaces_another_has_its_quotas_and_is_not_made_by_a_narrower_one(database: Database) -> None:
    def made(*scopes: Scope, **quotas: int | None) -> Caller:
        own: KeyQuotas = {Quota(name): limit for name, limit in quotas.items()}
        return check_key(database, create_key(database, owner="ada", scopes=scopes, lifetime=None, quotas=own))

    wide, narrow, usual = made(Scope.KEYS, queued=500), made(Scope.KEYS, queued=5), made(Scope.KEYS)
    overlap = KeyRotation(overlap_s=60)
    replaced = rotate_key(database, str(wide.key_id), timedelta(hours=1))
    assert replaced is not None
    assert check_key(database, replaced).quotas == {Quota.QUEUED: 500}
    mine = rotate_visible_key(database, narrow, str(narrow.key_id), overlap, defaults=DEFAULTS)
    assert mine.quotas == {Quota.QUEUED: 5}
    for keeper, theirs in ((narrow, wide), (narrow, usual), (usual, wide)):
        with pytest.raises(PermissionDenied, match="may have more than itself"):
            rotate_visible_key(database, keeper, str(theirs.key_id), overlap, defaults=DEFAULTS)
    assert rotate_visible_key(database, usual, str(narrow.key_id), overlap, defaults=DEFAULTS).quotas == mine.quotas


# Through the door


@contextmanager
def user(
    api: RunningApi, key: str | None, *, require_key: bool = False, models: bool = False
) -> Iterator[InferenceClient]:
    with (
        serve_door(api.url, allow_post_model=models, require_key=require_key) as url,
        InferenceClient(url, key=key) as client,
    ):
        yield client


def make(api: RunningApi, *scopes: Scope, lifetime: timedelta | None = None) -> str:
    database = Database(api.database_url)
    try:
        return create_key(database, owner="ada", scopes=scopes, lifetime=lifetime)
    finally:
        database.close()


def test_everybody_learns_who_they_are_and_what_goes_without_a_key(private_api: RunningApi) -> None:
    key = make(private_api, Scope.SUBMIT, Scope.KEYS, lifetime=timedelta(days=1))
    with user(private_api, key, require_key=True) as client:
        me = client.whoami()
        assert (me.owner, me.key_id, me.scopes) == ("ada", key.split("_")[1], ["submit", "keys"])
        assert (me.requires_key, me.anonymous_scopes) == (True, [])
        assert me.expires_at is not None
        assert me.expires_at > datetime.now(UTC)
    with user(private_api, None, models=True) as client:
        me = client.whoami()
        assert (me.owner, me.key_id, me.scopes, me.expires_at) == (None, None, ["submit", "models"], None)
        assert (me.requires_key, me.anonymous_scopes) == (False, ["submit", "models"])
    with user(private_api, None, require_key=True) as client, pytest.raises(client_errors.Unauthenticated):
        client.whoami()


def test_a_key_is_shown_once_works_at_once_and_ends_at_once(private_api: RunningApi) -> None:
    with user(private_api, make(private_api, Scope.KEYS, Scope.SUBMIT), require_key=True) as client:
        made = client.create_key(["submit"], lifetime_s=60)
        secret = made.key.split("_")[2]
        with user(private_api, made.key, require_key=True) as other:
            assert other.whoami().scopes == ["submit"]
            with pytest.raises(client_errors.PermissionDenied, match="lacks the scope keys"):
                list(other.list_keys())
            listed = list(client.list_keys())
            assert [key.id for key in listed][-1] == made.id
            assert secret not in str(listed)
            client.revoke_key(made.id)
            with pytest.raises(client_errors.Unauthenticated, match="revoked"):
                other.whoami()
        for unknown in ("0" * 16, "nonsense"):
            with pytest.raises(client_errors.KeyNotFound):
                client.revoke_key(unknown)


def test_a_bad_wish_is_refused_by_name_and_a_new_key_is_stored_by_no_cache(private_api: RunningApi) -> None:
    headers = {"X-API-Key": make(private_api, Scope.ADMIN)}
    with serve_door(private_api.url) as url, httpx.Client(base_url=url, headers=headers, **PLAIN) as client:
        for body, word in (
            ({}, "scopes"),
            ({"scopes": []}, "scopes"),
            ({"scopes": ["everything"]}, "scopes"),
            ({"scopes": ["submit"], "owner": "a b"}, "owner"),
            ({"scopes": ["submit"], "lifetime_s": 0}, "lifetime_s"),
            ({"scopes": ["submit"], "lifetime": 5}, "lifetime"),
            ({"scopes": ["submit"], "quotas": {"queued": 0}}, "quotas.queued"),
            ({"scopes": ["submit"], "quotas": {"waiting": 5}}, "quotas.waiting"),
        ):
            answer = client.post("/api/keys/", json=body)
            assert (answer.status_code, word in answer.json()["detail"]) == (422, True), answer.text
        assert client.post("/api/keys/", json={"scopes": ["submit"]}).headers["cache-control"] == "no-store"


def test_infer_shows_who_one_is_and_makes_and_revokes_keys(tmp_path: Path) -> None:
    with serve(tmp_path) as server:
        database = Database(f"sqlite:///{tmp_path / 'db'}")
        key = create_key(database, owner="ada", scopes=[Scope.KEYS, Scope.SUBMIT], lifetime=None)
        keeper = User(tmp_path / "home", INFERENCE_SERVER_URL=server.closed_url, INFERENCE_SERVER_KEY=key)
        shown = keeper.pipes("whoami").stdout
        assert all(word in shown for word in ("ada", key.split("_")[1], "submit models keys", "every call needs one"))
        assert key.split("_")[2] not in shown

        made = keeper.pipes("keys", "create", "--scope", "submit", "--expires", "1h")
        assert made.returncode == 0, made.stderr
        assert check_key(database, made.stdout.strip()).scopes == {"submit"}
        listed = keeper.pipes("keys").stdout
        assert made.stdout.split("_")[1] in listed
        assert made.stdout.strip().split("_")[2] not in listed
        # The whole key, pasted, is understood and goes no further.
        revoked = keeper.pipes("keys", "revoke", made.stdout.strip())
        assert (revoked.returncode, made.stdout.split("_")[1] in revoked.stderr) == (0, True)
        assert [key.state for key in list_keys(database)][-1] is KeyState.REVOKED
        refused = keeper.pipes("keys", "create", "--scope", "operate")
        assert (refused.returncode, "operate" in refused.stderr) == (4, True)
        unknown = keeper.pipes("keys", "revoke", "0" * 16)
        assert (unknown.returncode, "infer keys" in unknown.stderr) == (3, True)
        database.close()


def test_a_key_is_replaced_by_one_that_allows_the_same_and_both_are_valid_for_a_while(private_api: RunningApi) -> None:
    keeper = make(private_api, Scope.KEYS, Scope.SUBMIT)
    old = make(private_api, Scope.SUBMIT, lifetime=timedelta(days=90))
    with user(private_api, keeper, require_key=True) as client:
        made = client.rotate_key(old.split("_")[1], overlap_s=3600)
        assert (made.owner, made.scopes, made.key != old) == ("ada", ["submit"], True)
        assert made.expires_at is not None
        assert made.expires_at - made.created_at == timedelta(days=90)
        expiry = {key.id: key.expires_at for key in client.list_keys()}[old.split("_")[1]]
        assert expiry == made.created_at + timedelta(hours=1)
        for key in (old, made.key):
            with user(private_api, key, require_key=True) as both:
                assert both.whoami().scopes == ["submit"]
        # One's own as well, at once.
        mine = client.rotate_key(keeper.split("_")[1], overlap_s=0)
        with pytest.raises(client_errors.Unauthenticated, match="expired"):
            client.whoami()
    with user(private_api, mine.key, require_key=True) as client:
        assert client.whoami().scopes == ["submit", "keys"]
        with pytest.raises(client_errors.InvalidRequest, match="is expired, so nobody uses it any more"):
            client.rotate_key(keeper.split("_")[1])
        with pytest.raises(client_errors.KeyNotFound):
            client.rotate_key("0" * 16)


def test_no_key_is_replaced_by_a_caller_who_could_not_have_made_it(private_api: RunningApi) -> None:
    more, host = make(private_api, Scope.ADMIN), make(private_api, Scope.CONSUME)
    with user(private_api, make(private_api, Scope.KEYS), require_key=True) as client:
        for key, why in ((more, "lacks the scope"), (host, "made on the server")):
            with pytest.raises(client_errors.PermissionDenied, match=why):
                client.rotate_key(key.split("_")[1])
        assert {key.state for key in client.list_keys()} == {"valid"}
