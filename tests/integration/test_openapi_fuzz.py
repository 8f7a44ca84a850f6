"""Both HTTP APIs under requests made from their own OpenAPI documents: valid ones, and ones with one thing wrong.

Schemathesis derives the requests from the document and compares each answer with it. They are the same at each run.
"""

import itertools
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import strategies as st
from schemathesis.checks import CheckContext
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation.feedback import FeedbackSources
from schemathesis.pytest._test_builder import build_operation_test

from contract.access import CALLER_KEY_HEADER, Scope
from contract.broker.memory import InMemoryBroker
from contract.claims import ClaimRequest
from contract.private_client import PrivateClient
from kit.http_server import serve_in_thread
from private_api.database import Database
from private_api.keys import create_key
from private_api.service import PrivateApiOptions, private_api_service
from private_api.tasks.limits import SizeLimits
from tests.integration.public_door import DEADLINE_S, MIB, PLAIN, TOKEN, UNKNOWN_UID, RunningDoor, finish, serve_door
from tests.zips import make_zip

FEW_OR_MANY = pytest.mark.parametrize(
    "examples", [pytest.param(1, id="few"), pytest.param(4, id="many", marks=pytest.mark.long)]
)
"""Drawn for each operation, beside those that take its parameters to their bounds one by one."""
OURS = ["550", "551", "552", "553", "554"]
"""What is answered about models and tasks; any other code from 500 up is a failure of the server."""
MODEL, DOOMED_MODEL = "echo", "doomed"
ZIP_TYPES = ("application/zip", "application/octet-stream")
# A document says no more of a zip than that it is bytes; none that are drawn at random would be one.
for _name in ZIP_TYPES:
    schemathesis.openapi.media_type(_name, st.sampled_from([make_zip(), b"", b"PK\x03\x04"]))
schemathesis.openapi.format("binary", st.sampled_from([make_zip(), b"PK\x03\x04"]))
_INSIDES = re.compile(
    r"Traceback|File \"|\.py\b|site-packages|sqlalchemy|sqlite|psycopg|SELECT |INSERT |UPDATE |/tmp/|/usr/|/home/"
)


@dataclass(frozen=True)
class World:
    """A running server that has one of everything, so that requests get behind the first check of a name."""

    door: RunningDoor
    key: str
    known: dict[str, list[Any]]
    """What path parameters may be, by name."""
    doomed: dict[str, list[Any]]
    """The same for calls that delete what they name."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    data_dir = tmp_path_factory.mktemp("fuzz")
    url = f"sqlite:///{data_dir / 'db'}"
    options = PrivateApiOptions(
        database_url=url,
        data_dir=data_dir,
        service_token=TOKEN,
        max_upload_bytes=MIB,
        sizes=SizeLimits(max_unpacked_bytes=16 * MIB, max_output_bytes=16 * MIB),
        keep_finished_for=timedelta(days=1),
        unschedulable_after=timedelta(days=1),
    )
    with ExitStack() as stack:
        app = stack.enter_context(private_api_service(stack.enter_context(InMemoryBroker()), options))
        private_url = f"http://127.0.0.1:{stack.enter_context(serve_in_thread(app, '127.0.0.1', 0))}"
        database = Database(url)
        stack.callback(database.close)
        key, doomed_key = (
            create_key(database, owner=owner, scopes=[Scope.ADMIN], lifetime=None) for owner in ("ada", "bob")
        )
        door_url = stack.enter_context(serve_door(private_url, require_key=True))
        door = RunningDoor(door_url, data_dir, private_url)
        client = stack.enter_context(httpx.Client(base_url=door_url, headers={"X-API-Key": key}, **PLAIN))
        for name in (MODEL, DOOMED_MODEL):
            assert client.post("/api/models/", params={"human_readable_id": name, "container_tag": "e:1"}).is_success
        finished, running, doomed = (submit(client) for _ in range(3))
        finish(door, finished, "a warning")
        fence = hold(private_url, running)
        known = {
            "uid": [finished, running, UNKNOWN_UID],
            "human_readable_id": [MODEL, "unknown"],
            "version": [1, 2],
            "path": ["a.txt", "file.txt"],
            "name": ["tests", "unknown"],
            "key_id": [doomed_key.split("_")[1], "0" * 16],
            "fence": [fence, fence + 1],
            CALLER_KEY_HEADER: [key],
        }
        gone = {**known, "uid": [doomed, UNKNOWN_UID], "human_readable_id": [DOOMED_MODEL, "unknown"]}
        yield World(door, key, known, gone)
        # Nothing has taken the key of all these requests away.
        assert client.get("/api/me").json()["owner"] == "ada"


def submit(client: httpx.Client) -> str:
    answer = client.post("/api/tasks/", params={"human_readable_id": MODEL}, files={"zip_file": make_zip()})
    assert answer.status_code == 200, answer.text
    uid: str = answer.json()
    return uid


def hold(private_url: str, uid: str) -> int:
    with PrivateClient(private_url, TOKEN) as consumer:
        assignment = consumer.claim(ClaimRequest(consumer="tests", uid=uid))
    assert assignment is not None
    return assignment.fence


def load(url: str, headers: dict[str, str], *, bounds_of: str, examples: int) -> Any:
    """The document of the API at `url`. The parameters of paths that match `bounds_of` are taken to their bounds."""
    configuration = {
        "base-url": url,
        "headers": headers,
        "generation": {
            "deterministic": True,
            "max-examples": examples,
            "database": "none",
            "no-shrink": True,
            # Who may call what with which key is the matrix of test_access.py.
            "with-security-parameters": False,
        },
        "phases": {
            "coverage": {"enabled": False},
            # What follows from earlier answers differs from run to run: they have uids.
            "stateful": {"enabled": False},
        },
        "operations": [
            {
                "include-path-regex": bounds_of,
                "phases": {"coverage": {"enabled": True, "unexpected-methods": ["OPTIONS", "PUT"]}},
            },
            {
                # In a body "1" passes for 1, and 0 for false, as clients of earlier releases may write them.
                "include-method": ["POST", "PATCH"],
                "checks": {"negative_data_rejection": {"enabled": False}},
            },
        ],
        "checks": {
            "ignored_auth": {"enabled": False},
            "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", *OURS]},
            "negative_data_rejection": {"expected-statuses": ["4xx", *OURS]},
            # What is right on its own may be wrong together, or of something that has ended.
            "positive_data_acceptance": {"enabled": False},
        },
    }
    document = httpx.get(f"{url}/openapi.json", **PLAIN).json()
    return schemathesis.openapi.from_dict(document, config=schemathesis.Config.from_dict(configuration))


def shows_no_insides(_ctx: CheckContext, response: schemathesis.Response, _case: schemathesis.Case) -> None:
    text = response.content.decode(errors="replace")
    assert not _INSIDES.search(text), text


def name_what_exists(case: schemathesis.Case, world: World, turn: int) -> None:
    """Let a request get behind the first check of its names, unless one of them is what is wrong with it."""
    deletes = case.method == "DELETE" and not case.path.endswith("/deployment")
    known = world.doomed if deletes else world.known
    for values, place in (
        (case.path_parameters, ParameterLocation.PATH),
        (case.query if case.operation.label == "POST /api/tasks/" else {}, ParameterLocation.QUERY),
        (case.headers, ParameterLocation.HEADER),
    ):
        if case.meta is None or not case.meta.is_negative_at(place):
            for name in values.keys() & known.keys():
                values[name] = known[name][turn % len(known[name])]


def bound(case: schemathesis.Case) -> None:
    """Ask for no answer that is held for so many seconds, nor for a log that goes on until its task ends."""
    wait, follow = str(case.query.get("wait", "")), str(case.query.get("follow", "")).lower()
    if re.fullmatch(r"\d+(\.\d+)?", wait) and float(wait) <= 60:
        case.query["wait"] = 0
    if follow in ("true", "t", "1", "on", "y", "yes"):
        case.query["follow"] = False


def run_all(schema: Any, world: World, subtests: pytest.Subtests) -> None:
    turns = itertools.count()
    with requests.Session() as session:

        def check(case: schemathesis.Case) -> None:
            name_what_exists(case, world, next(turns))
            bound(case)
            case.call_and_validate(session=session, additional_checks=[shows_no_insides], timeout=DEADLINE_S)

        # Its answer does not end.
        operations = [each.ok() for each in schema.exclude(operation_id="stream_events").get_all_operations()]
        assert len(operations) > 40
        for operation in operations:
            # As `schema.parametrize()` does it, which needs an API that runs before any fixture does; `from_fixture`
            # needs an attribute that pytest 9.2 has no more.
            test = build_operation_test(
                config=schema.config, operation=operation, test_func=check, given_kwargs={}, feedback=FeedbackSources()
            )
            with subtests.test(operation.label):
                test()


@FEW_OR_MANY
def test_the_public_api_answers_as_its_document_says(world: World, subtests: pytest.Subtests, examples: int) -> None:
    # A deployment has so many members that their bounds alone would take a quarter of the time.
    run_all(
        load(world.door.url, {"X-API-Key": world.key}, bounds_of="(?<!/deployment)$", examples=examples),
        world,
        subtests,
    )


@FEW_OR_MANY
def test_the_public_api_answers_strangers_as_its_document_says(
    world: World, subtests: pytest.Subtests, examples: int
) -> None:
    run_all(load(world.door.url, {}, bounds_of="^$", examples=examples), world, subtests)


@FEW_OR_MANY
def test_the_private_api_answers_as_its_document_says(world: World, subtests: pytest.Subtests, examples: int) -> None:
    # Below /api/ that is what the door takes as well.
    run_all(
        load(world.door.private_url, {"Authorization": f"Bearer {TOKEN}"}, bounds_of="^/internal/", examples=examples),
        world,
        subtests,
    )
