"""Who may call what through the door: every route as every role, in both modes, over both kinds of database."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from contract.access import Scope
from contract.errors import TaskNotFound
from private_api.database import Database
from private_api.keys import create_key, revoke_key
from private_api.tables import ApiKeyRow
from tests.integration.public_door import PLAIN, RunningDoor, finish, serve_door
from tests.running_api import RunningApi
from tests.zips import make_zip

ADA = "ada"
# Role, owner of its key, scopes of its key.
GOOD = {
    "owner": (ADA, [Scope.SUBMIT]),
    "the owner's other key": (ADA, [Scope.SUBMIT, Scope.MODELS]),
    "stranger": ("bob", [Scope.SUBMIT]),
    "registrar": ("eve", [Scope.MODELS]),
    "operator": ("carol", [Scope.OPERATE]),
    "keeper": ("kim", [Scope.KEYS]),
    "admin": ("dan", [Scope.ADMIN]),
    "consumer": ("host-a", [Scope.CONSUME]),
}
BAD = ("expired", "revoked", "wrong secret", "unknown", "malformed", "empty")
ROLES = ("anonymous", *GOOD, *BAD)
OF_DOORS = ("/internal/gateways/", "/internal/polls")
"""Below `/internal/`, and no consumer's matter."""
OF_ADA = {"owner", "the owner's other key", "operator", "admin"}
TASK_ROUTES = {
    ("get", "/api/tasks/{uid}"): 551,
    ("head", "/api/tasks/{uid}"): 551,
    ("get", "/api/tasks/{uid}/status"): 200,
    ("get", "/api/tasks/{uid}/logs"): 200,
    ("get", "/api/tasks/{uid}/events"): 200,
    ("get", "/api/tasks/{uid}/attempts"): 200,
    ("get", "/api/tasks/{uid}/output"): 551,
    ("head", "/api/tasks/{uid}/output"): 551,
    ("get", "/api/tasks/{uid}/output/files"): 551,
    ("get", "/api/tasks/{uid}/output/files/{path}"): 551,
    ("head", "/api/tasks/{uid}/output/files/{path}"): 551,
    ("get", "/api/tasks/{uid}/input/files"): 200,
    ("get", "/api/tasks/{uid}/input/files/{path}"): 200,
    ("head", "/api/tasks/{uid}/input/files/{path}"): 200,
    ("post", "/api/tasks/{uid}/rerun"): 200,
    ("post", "/api/tasks/{uid}/cancel"): 200,
    ("delete", "/api/tasks/{uid}"): 204,
}
"""What each answers about a queued task, to who may see it; in an order in which all of them can be asked."""
MODEL = "/api/models/{human_readable_id}"
VERSION = f"{MODEL}/versions/{{version}}"
DEPLOYMENT = f"{MODEL}/deployment"
OPEN_ROUTES = {("get", "/healthz"), ("get", "/readyz")}


@dataclass(frozen=True)
class Stage:
    """One private API, a door of each mode before it, and a key for each role."""

    private: RunningApi
    open_url: str
    closed_url: str
    keys: dict[str, str]

    @contextmanager
    def client(self, role: str = "anonymous", *, require_key: bool = False) -> Iterator[httpx.Client]:
        headers = {"X-API-Key": self.keys[role]} if role in self.keys else {}
        url = self.closed_url if require_key else self.open_url
        with httpx.Client(base_url=url, headers=headers, **PLAIN) as client:
            yield client

    def submit(self, role: str) -> str:
        with self.client(role) as client:
            return submit(client)


def submit(client: httpx.Client) -> str:
    answer = client.post("/api/tasks/", params={"human_readable_id": "echo"}, files={"zip_file": make_zip()})
    assert answer.status_code == 200, answer.text
    uid: str = answer.json()
    return uid


@pytest.fixture
def stage(private_api: RunningApi) -> Iterator[Stage]:
    keys = make_keys(private_api.database_url)
    with (
        serve_door(private_api.url, allow_post_model=False) as open_url,
        serve_door(private_api.url, allow_post_model=False, require_key=True) as closed_url,
    ):
        stage = Stage(private_api, open_url, closed_url, keys)
        with stage.client("the owner's other key") as ada:
            registration = {"human_readable_id": "echo", "container_tag": "echo:1"}
            assert ada.post("/api/models/", params=registration).status_code == 200
        yield stage


def make_keys(database_url: str) -> dict[str, str]:
    database = Database(database_url)
    try:
        keys = {
            role: create_key(database, owner=owner, scopes=scopes, lifetime=None)
            for role, (owner, scopes) in GOOD.items()
        }
        for role in ("expired", "revoked", "wrong secret"):
            keys[role] = create_key(
                database, owner=ADA, scopes=[Scope.SUBMIT, Scope.ADMIN], lifetime=timedelta(hours=1)
            )
        with database.write() as session:
            row = session.get_one(ApiKeyRow, keys["expired"].split("_")[1])
            session.execute(update(ApiKeyRow).where(ApiKeyRow.id == row.id).values(expires_at=row.created_at))
        revoke_key(database, keys["revoked"].split("_")[1])
    finally:
        database.close()
    keys["wrong secret"] = keys["wrong secret"][:-64] + "0" * 64
    return {**keys, "unknown": f"is_{'0' * 16}_{'0' * 64}", "malformed": "is_key", "empty": ""}


def expected(role: str, route: tuple[str, str], *, require_key: bool, of_ada: bool) -> int:
    """The whole of http-api.md's chapter on access, as one function."""
    if route in OPEN_ROUTES:
        return 200
    if role in BAD or (role == "anonymous" and require_key):
        return 401
    may_submit = role not in ("registrar", "operator", "keeper")
    may_read = role != "operator" or not of_ada
    if (
        role == "consumer"
        or (route[1].endswith("/rerun") and not may_submit)
        or (("/files" in route[1] or route[1].endswith("/logs")) and not may_read)
    ):
        return 403
    if route in TASK_ROUTES:
        if not of_ada or role in OF_ADA:
            return TASK_ROUTES[route]
        return 404 if route[1].endswith("/status") else TaskNotFound.http_status
    manages_keys = 401 if role == "anonymous" else 200 if role in ("keeper", "admin") else 403
    operates = role in ("operator", "admin")
    registers = role in ("the owner's other key", "registrar", "admin")
    # The model is Ada's.
    deploys = registers and role != "registrar"
    changes = deploys or operates
    return {
        # Nothing is deployed but by the call before.
        ("post", DEPLOYMENT): 200 if deploys else 403,
        ("get", DEPLOYMENT): 200 if deploys else 404,
        ("delete", DEPLOYMENT): 204 if changes else 403,
        ("get", "/api/deployments/"): 200,
        ("get", "/api/models/"): 200,
        ("get", MODEL): 200,
        ("get", f"{MODEL}/versions"): 200,
        ("patch", MODEL): 200 if changes else 403,
        ("patch", VERSION): 200 if changes else 403,
        # The task of the stage waits for it.
        ("delete", MODEL): 409 if changes else 403,
        ("delete", VERSION): 409 if changes else 403,
        ("get", "/api/tasks/"): 401 if role == "anonymous" else 200,
        ("get", "/api/consumers/"): 401 if role == "anonymous" else 200,
        ("get", "/api/queue"): 200,
        ("get", "/api/me"): 200,
        ("get", "/api/quota"): 200,
        ("get", "/api/events"): 200,
        ("get", "/api/keys/"): manages_keys,
        # Nobody has the key's scope that is asked for but the admin, and there is no key with the id.
        ("post", "/api/keys/"): 200 if role == "admin" else 403 if manages_keys == 200 else manages_keys,
        ("post", "/api/keys/{key_id}/rotate"): 404 if manages_keys == 200 else manages_keys,
        ("delete", "/api/keys/{key_id}"): 404 if manages_keys == 200 else manages_keys,
        # No consumer has this name.
        **{("post", f"/api/consumers/{{name}}/{how}"): 404 if operates else 403 for how in ("drain", "resume")},
        ("post", "/api/models/"): 200 if registers else 403,
        ("post", "/api/tasks/"): 200 if may_submit else 403,
    }[route]


def documented_routes(url: str) -> list[tuple[str, str]]:
    """Every call of OpenAPI, those of one task last and in the order of the table above."""
    paths = httpx.get(f"{url}/openapi.json", **PLAIN).json()["paths"]
    routes = [(method, path) for path, calls in paths.items() for method in calls]
    assert {route for route in routes if "{uid}" in route[1]} == set(TASK_ROUTES), "a route of tasks is not tested"
    return [*(route for route in routes if "{uid}" not in route[1]), *TASK_ROUTES]


def call(client: httpx.Client, route: tuple[str, str], uid: str) -> httpx.Response:
    method, path = route
    options: dict[str, Any] = {}
    if route == ("post", "/api/models/"):
        options = {"params": {"human_readable_id": f"posted-{uid[:8]}", "container_tag": "echo:1", "replace": "true"}}
    elif route[0] == "patch":
        options = {"json": {"description": "Gives the input back"}}
    elif route == ("post", DEPLOYMENT):
        options = {"json": {"port": 8001}}
    elif route == ("post", "/api/tasks/"):
        options = {"params": {"human_readable_id": "echo"}, "files": {"zip_file": make_zip()}}
    elif route == ("post", "/api/keys/"):
        options = {"json": {"scopes": ["submit"]}}
    elif route == ("post", "/api/keys/{key_id}/rotate"):
        options = {"json": {}}
    elif path == "/api/events":
        # Its answer does not end.
        with client.stream(method, path) as answer:
            return answer
    names = {"uid": uid, "human_readable_id": "echo", "key_id": "0" * 16, "path": "a.txt", "name": "x", "version": 1}
    return client.request(method, path.format(**names), **options)


# Each mode and each kind of database is there in `make test`; what one mode has over the other is judged before any row
# is read.
@pytest.mark.parametrize(
    ("database_url", "require_key"),
    [
        pytest.param("postgres", True, id="postgres-keys required"),
        pytest.param("sqlite", False, id="sqlite-open mode"),
        pytest.param("postgres", False, id="postgres-open mode", marks=pytest.mark.long),
        pytest.param("sqlite", True, id="sqlite-keys required", marks=pytest.mark.long),
    ],
    indirect=["database_url"],
)
def test_every_route_answers_every_role_as_the_rules_say(stage: Stage, require_key: bool) -> None:
    routes = documented_routes(stage.open_url)
    wrong = []
    for role in ROLES:
        # Of each role its own: some of them cancel and delete it.
        for of_ada, uid in ((True, stage.submit("owner")), (False, stage.submit("anonymous"))):
            with stage.client(role, require_key=require_key) as client:
                for route in routes:
                    answer = call(client, route, uid)
                    should = expected(role, route, require_key=require_key, of_ada=of_ada)
                    if answer.status_code != should:
                        wrong.append((role, route, "ada's" if of_ada else "open", answer.status_code, should))
                    assert ("www-authenticate" in answer.headers) == (answer.status_code == 401)
            with stage.client("owner") as owner:
                # What was refused changed nothing.
                was_deleted = (
                    expected(role, ("delete", "/api/tasks/{uid}"), require_key=require_key, of_ada=of_ada) == 204
                )
                status = owner.get(f"/api/tasks/{uid}/status")
                assert status.status_code == (404 if was_deleted else 200)
                assert was_deleted or status.json()["status"] == "queued"
    assert wrong == []


def test_the_documentation_needs_no_key(stage: Stage) -> None:
    with stage.client(require_key=True) as client:
        assert [client.get(path).status_code for path in ("/docs", "/openapi.json")] == [200, 200]


def test_a_stranger_gets_no_byte_of_an_output_in_any_way(stage: Stage) -> None:
    uid = stage.submit("owner")
    output = finish(RunningDoor("", stage.private.data_dir, stage.private.url), uid)
    headers: list[dict[str, str]] = [
        {},
        {"Range": "bytes=0-3"},
        {"If-None-Match": f'"{hashlib.sha256(output).hexdigest()}"'},
    ]
    for role in ("stranger", "anonymous", "registrar"):
        with stage.client(role) as client:
            for path in (f"/api/tasks/{uid}", f"/api/tasks/{uid}/output", f"/api/tasks/{uid}?wait=60"):
                for extra in headers:
                    answer = client.get(path, headers=extra)
                    assert (answer.status_code, answer.json()) == (554, TaskNotFound().to_body())
            assert client.get(f"/api/tasks/{uid}/logs", params={"follow": "true"}).status_code == 554
            assert client.get(f"/api/tasks/{uid}/status?wait=60").status_code == 404
    for role in ("owner", "operator"):
        with stage.client(role) as client:
            assert client.get(f"/api/tasks/{uid}?wait=1").content == output
            log = client.get(f"/api/tasks/{uid}/logs", params={"follow": "true"})
            # What a container wrote is its owner's alone.
            assert (log.text == "a line\n") if role == "owner" else (log.status_code == 403)


def test_a_key_is_also_a_bearer_token_and_a_forged_header_of_ours_is_none(stage: Stage) -> None:
    uid, owner, admin = stage.submit("owner"), stage.keys["owner"], stage.keys["admin"]
    cases: list[tuple[dict[str, str], int]] = [
        ({"Authorization": f"Bearer {owner}"}, 200),
        ({"Authorization": f"bearer  {owner}"}, 200),
        ({"Authorization": f"Bearer {stage.private.token}"}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Authorization": "Basic YTpi"}, 404),
        ({"X-API-Key": owner, "Authorization": "Bearer nonsense"}, 200),
        ({"X-API-Key": "nonsense", "Authorization": f"Bearer {owner}"}, 401),
        ({"X-Caller-Key": admin}, 404),
        ({"X-Caller-Key": admin, "X-API-Key": stage.keys["stranger"]}, 404),
        ({"X-Door-Policy": "key=optional models=open"}, 404),
    ]
    with stage.client() as client, stage.client(require_key=True) as closed:
        for headers, code in cases:
            path = f"/api/tasks/{uid}/status"
            assert client.get(path, headers=headers).status_code == code, headers
            # Where a key is required, what is none is 401.
            has_key = any(name in headers for name in ("X-API-Key", "Authorization")) and "Basic" not in str(headers)
            assert closed.get(path, headers=headers).status_code == (code if has_key else 401), headers


def test_the_door_may_let_every_caller_register_models_but_not_without_a_required_key(stage: Stage) -> None:
    registration = {"human_readable_id": "posted", "container_tag": "echo:1", "replace": "true"}
    keys = {role: {"X-API-Key": stage.keys[role]} for role in ("stranger", "operator", "malformed")}
    with serve_door(stage.private.url, allow_post_model=True, require_key=True) as url:
        for path in ("/api/models/", "/api/tasks/"):
            codes = [
                httpx.post(url + path, params=registration, headers=headers, **PLAIN).status_code
                for headers in (*keys.values(), {})
            ]
            assert codes == [200, 200, 401, 401]


def test_a_priority_above_zero_needs_the_scope_operate(stage: Stage) -> None:
    for role, priority, code in (
        ("owner", 1, 403),
        ("anonymous", 1, 403),
        ("admin", 100, 200),
        ("owner", 0, 200),
        ("anonymous", -100, 200),
        ("admin", 101, 422),
    ):
        with stage.client(role) as client:
            query = {"human_readable_id": "echo", "priority": priority}
            answer = client.post("/api/tasks/", params=query, files={"zip_file": make_zip()})
            assert answer.status_code == code, (role, priority, answer.text)
            if code == 200:
                assert client.get(f"/api/tasks/{answer.json()}/status").json()["priority"] == priority
            elif code == 403:
                assert "scope operate" in answer.json()["detail"]


def test_a_refusal_says_what_to_do(stage: Stage) -> None:
    registration = {"human_readable_id": "posted", "container_tag": "echo:1"}
    with stage.client("stranger") as client:
        refused = client.post("/api/models/", params=registration).json()
        assert "ALLOW_PUBLIC_POST_MODEL" in refused["detail"]
        assert "scope models" in refused["detail"]
    with stage.client(require_key=True) as client:
        answer = client.get("/api/models/")
        assert answer.headers["www-authenticate"] == 'Bearer realm="InferenceServer"'
        assert "X-API-Key" in answer.json()["detail"]
    for role in ("expired", "revoked"):
        with stage.client(role) as client:
            assert role in client.get("/api/models/").json()["detail"]


def test_the_list_has_pages(stage: Stage) -> None:
    uids = [stage.submit("owner") for _ in range(3)]
    stage.submit("stranger")
    with stage.client("the owner's other key", require_key=True) as client:
        pages = [client.get("/api/tasks", params={"limit": 2}).json()]
        pages.append(client.get("/api/tasks/", params={"limit": 2, "after": pages[0][-1]["uid"]}).json())
        assert [[task["uid"] for task in page] for page in pages] == [[uids[2], uids[1]], [uids[0]]]
        assert {task["owner"] for page in pages for task in page} == {ADA}
        assert client.get("/api/tasks/", params={"after": "x"}).status_code == 422
        assert client.get("/api/tasks/", params={"status": "broken"}).status_code == 422
        # Without a zone nobody knows which time is meant.
        assert client.get("/api/tasks/", params={"since": "2026-11-21T07:00:00"}).status_code == 422
        assert client.get("/api/tasks/", params={"since": "1763708400"}).status_code == 422
        assert client.get("/api/tasks/", params={"surprise": "x"}).status_code == 422


def test_the_list_of_an_operator_has_everybodys_tasks(stage: Stage) -> None:
    ours, theirs, open_ = (stage.submit(role) for role in ("owner", "stranger", "anonymous"))

    def listed(role: str, **params: Any) -> Any:
        with stage.client(role) as client:
            answer = client.get("/api/tasks/", params=params)
            return [task["uid"] for task in answer.json()] if answer.status_code == 200 else answer.status_code

    for role in ("operator", "admin"):
        assert listed(role) == listed(role, owner="*") == [open_, theirs, ours]
        assert listed(role, owner=ADA, status=["queued", "failed"], since="2026-01-01T00:00:00+00:00") == [ours]
        assert listed(role, status="failed") == []
    assert listed("owner") == listed("owner", owner=ADA) == [ours]
    assert [listed("owner", owner=owner) for owner in ("*", "bob")] == [403, 403]
    assert [listed(role, owner="*") for role in ("registrar", "anonymous")] == [403, 401]


@pytest.mark.parametrize("opens_models", [False, True])
@pytest.mark.parametrize("require_key", [False, True])
def test_a_door_warns_at_its_start_and_in_its_docs_of_what_is_open_to_everybody(
    require_key: bool, opens_models: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with serve_door("http://127.0.0.1:1", require_key=require_key, allow_post_model=opens_models) as url:
        warnings = [record.getMessage() for record in caplog.records if record.name.startswith("public_api")]
        described = httpx.get(f"{url}/openapi.json", **PLAIN).json()["info"]["description"]
    said = [] if require_key else ["open mode: no key is required"]
    said += ["ALLOW_PUBLIC_POST_MODEL is set: every key may register models"] if require_key and opens_models else []
    assert [warning.startswith(words) for warning, words in zip(warnings, said, strict=True)] == [True] * len(said)
    assert ("This server is open" in described) is not require_key
    assert ("and register models, which are programs" in described) is (opens_models and not require_key)


def test_only_the_service_token_or_below_internal_a_consumers_key_opens_the_private_api(stage: Stage) -> None:
    forged = {"X-Caller-Key": stage.keys["admin"], "X-Door-Policy": "key=optional models=open"}
    with httpx.Client(base_url=stage.private.url, headers=forged, **PLAIN) as client:
        paths = client.get("/openapi.json").json()["paths"]
        guarded = [
            (method, path) for path, calls in paths.items() if path.startswith(("/api/", "/inter")) for method in calls
        ]
        # It holds no secret, and Traefik has no token to show.
        guarded.remove(("get", "/internal/gateways/traefik"))
        assert len(guarded) > 15
        for method, path in guarded:
            names = dict.fromkeys(("human_readable_id", "gateway", "path", "name", "key_id"), "x")
            url = path.format(uid="0" * 64, fence=1, version=1, **names)
            answer = client.request(method, url)
            assert (answer.status_code, "service token" in answer.json()["detail"]) == (401, True), (method, path)
            # A key proves nobody to be a door, and a consumer only where it is one's.
            for role in ROLES[1:-1]:
                answer = client.request(method, url, headers={"Authorization": f"Bearer {stage.keys[role]}"})
                is_of_doors = not path.startswith("/internal/") or path.startswith(OF_DOORS)
                is_known = role in GOOD and not is_of_doors
                assert (answer.status_code == 403) == (is_known and role != "consumer"), (method, path, role)
                assert (answer.status_code == 401) == (not is_known), (method, path, role)
