"""The client describes the server in its own words; here the two are compared, so that they cannot drift apart.

Each kind of drift is also planted, to see that it is found.
"""

import copy
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from contract import zip_rules
from contract.access import DoorPolicy
from contract.errors import error_classes
from inference_client import (
    event_schemas,
    key_schemas,
    overview_schemas,
    schemas,
    serving,
    statuses,
    stored_files,
    zip_names,
)
from inference_client.cli.hints import HINTS, speaks_http
from inference_client.errors import server_errors
from inference_client.models import ImageFinding, ModelRegistration, ModelVersionView, ModelView
from inference_client.schemas import DeploymentView, TaskView
from inference_client.serving import ServingSpec
from public_api.app import create_app
from tests.unit.client_drift import (
    DEPLOYMENT,
    Document,
    ErrorTree,
    describe_errors,
    find_call_drift,
    find_error_drift,
    find_input_drift,
    find_view_drift,
    find_word_drift,
    query_schema,
    record_calls,
)
from tests.unit.client_peer import task_view

VIEWS: list[type[BaseModel]] = [
    schemas.ArchiveView,
    ImageFinding,
    ModelView,
    ModelVersionView,
    schemas.TaskView,
    serving.ServingSpec,
    serving.RestrictedKey,
    schemas.ReplicaView,
    schemas.DeploymentView,
    stored_files.FileView,
    schemas.EventView,
    schemas.AttemptView,
    overview_schemas.LaneView,
    overview_schemas.QueuedTask,
    overview_schemas.QueueView,
    overview_schemas.ConsumerTask,
    overview_schemas.HostedReplica,
    overview_schemas.ConsumerView,
    key_schemas.KeyView,
    key_schemas.CreatedKey,
    key_schemas.MeView,
    key_schemas.QuotaView,
    key_schemas.OwnerQuotas,
    event_schemas.TaskEvent,
    event_schemas.DeploymentEvent,
    event_schemas.QueueEvent,
]
VOCABULARIES = statuses.Word.__subclasses__()
FOR_CONSUMERS_ONLY = {"StaleFence"}


@pytest.fixture(scope="module")
def openapi() -> Document:
    policy = DoorPolicy(requires_key=False, opens_models=True)
    return create_app(private_url="http://nowhere", service_token="a-service-token", policy=policy).openapi()


@pytest.fixture
def document(openapi: Document) -> Document:
    """A copy to plant a drift in."""
    return copy.deepcopy(openapi)


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> list[httpx.Request]:
    folder: Path = tmp_path_factory.mktemp("calls")
    return record_calls(folder)


def find_registration_drift(document: Document) -> list[str]:
    query = query_schema(document, "post", "/api/models/")
    return find_input_drift(ModelRegistration, query, document["components"]["schemas"])


def find_serving_drift(document: Document) -> list[str]:
    components = document["components"]["schemas"]
    return find_input_drift(ServingSpec, components["ServingSpec"], components)


def find_errors(document: Document, own: ErrorTree | None = None) -> list[str]:
    known = describe_errors(error_classes())
    own = describe_errors(server_errors()) if own is None else own
    return find_error_drift(document, known, own, never_answered=FOR_CONSUMERS_ONLY)


def test_the_client_reads_every_answer(openapi: Document) -> None:
    assert find_view_drift(openapi, VIEWS) == []


def test_the_server_takes_what_the_client_sends(openapi: Document, sent: list[httpx.Request]) -> None:
    assert find_registration_drift(openapi) == []
    assert find_serving_drift(openapi) == []
    assert find_call_drift(openapi, sent) == []


def test_both_use_the_same_words(openapi: Document) -> None:
    assert find_word_drift(openapi, VOCABULARIES) == []


def test_both_have_the_same_errors(openapi: Document) -> None:
    assert find_errors(openapi) == []


def properties(document: Document, name: str) -> Document:
    found: Document = document["components"]["schemas"][name]["properties"]
    return found


@pytest.mark.parametrize(
    ("plant", "fault"),
    [
        (lambda d: properties(d, "TaskView").pop("eta"), "TaskView.eta: the server has no such field"),
        (lambda d: d["components"]["schemas"].pop("ArchiveView"), "ArchiveView.sha256: the server has no such field"),
        (
            lambda d: properties(d, "ModelView").update(version={"type": "string"}),
            "ModelView.version: the client does not read string",
        ),
        (
            lambda d: properties(d, "TaskView").update(attempt={"anyOf": [{"type": "integer"}, {"type": "null"}]}),
            "TaskView.attempt: the client does not read null",
        ),
        (
            lambda d: d["components"]["schemas"]["DeploymentView"]["required"].remove("failures"),
            "DeploymentView.failures: the server may leave it out",
        ),
        (
            lambda d: properties(d, "DeploymentView").update(replicas={"type": "array", "items": {"type": "string"}}),
            "DeploymentView.replicas: the client does not read list of string",
        ),
    ],
)
def test_an_answer_that_changed_is_found(document: Document, plant: Callable[[Document], object], fault: str) -> None:
    plant(document)
    assert fault in find_view_drift(document, VIEWS)


def parameter(document: Document, name: str) -> Document:
    declared = document["paths"]["/api/models/"]["post"]["parameters"]
    found: Document = next(each for each in declared if each["name"] == name)
    return found


@pytest.mark.parametrize(
    ("plant", "fault"),
    [
        (lambda d: parameter(d, "use_gpu").update(name="gpu"), "use_gpu: the server takes no such field"),
        (
            lambda d: d["components"]["schemas"]["Isolation"]["enum"].remove("compatible"),
            "isolation: the server does not take word compatible",
        ),
        (
            lambda d: parameter(d, "time_limit_s")["schema"].update(default=60),
            "time_limit_s: the server's default is 60",
        ),
        (lambda d: parameter(d, "human_readable_id")["schema"].update(pattern="x"), "pattern is 'x' at the server"),
        (lambda d: parameter(d, "description").update(required=True), "description: the server requires it"),
        (lambda d: parameter(d, "container_tag")["schema"].update(type="integer"), "the server takes no text"),
    ],
)
def test_a_registration_that_changed_is_found(
    document: Document, plant: Callable[[Document], object], fault: str
) -> None:
    plant(document)
    (found,) = find_registration_drift(document)
    assert fault in found


def test_a_description_that_changed_is_found(document: Document) -> None:
    properties(document, "ServingSpec").pop("prefix")
    properties(document, "ServingSpec")["priority"]["default"] = 0
    assert find_serving_drift(document) == [
        "ServingSpec.prefix: the server takes no such field",
        "ServingSpec.priority: the server's default is 0",
    ]


@pytest.mark.parametrize(
    ("plant", "fault"),
    [
        (lambda d: d["paths"].pop("/api/tasks/{uid}/logs"), "/logs: no such call"),
        (lambda d: d["paths"]["/api/tasks/{uid}/status"]["get"].update(parameters=[]), "/status: no parameter wait"),
        (lambda d: d["paths"]["/api/tasks/"]["post"].update(parameters=[]), "no header Idempotency-Key"),
        (
            lambda d: d["paths"]["/api/models/"]["post"]["requestBody"]["content"].pop("application/zip"),
            "POST /api/models/: no body of application/zip",
        ),
    ],
)
def test_a_call_that_changed_is_found(
    document: Document, sent: list[httpx.Request], plant: Callable[[Document], object], fault: str
) -> None:
    plant(document)
    assert any(fault in found for found in find_call_drift(document, sent))


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_a_word_of_one_side_only_is_found(document: Document, vocabulary: type[statuses.Word]) -> None:
    name = vocabulary.__name__
    words = document["components"]["schemas"][name]["enum"]
    gone = words.pop()
    words.append("novelty")
    assert find_word_drift(document, VOCABULARIES) == [
        f"{name}: the server does not say {gone}",
        f"{name}: the client does not know novelty",
    ]


def test_an_error_that_differs_is_found(openapi: Document) -> None:
    own = describe_errors(server_errors())
    task_failed, invented = own.pop("TaskFailed"), {"Invented": (400, "InferenceError")}
    assert find_errors(openapi, own) == ["TaskFailed: the server answers it, the client does not know it"]
    own["TaskFailed"] = task_failed
    assert find_errors(openapi, own | invented) == ["Invented: missing in the server"]
    own["TooLarge"] = (414, "InferenceError")
    own["NameTaken"] = (409, "InferenceError")
    assert sorted(find_errors(openapi, own)) == [
        "NameTaken: it stands below Conflict at the server",
        "TooLarge: its status is 413 at the server",
    ]


def test_every_error_whose_text_speaks_of_http_has_a_hint() -> None:
    speaking = {cls.__name__ for cls in error_classes() if speaks_http(cls().detail)}
    assert speaking <= {cls.__name__ for cls in HINTS}
    assert not any(speaks_http(hint) for hint in HINTS.values())


def test_words_of_a_newer_server_are_kept_and_its_further_members_ignored() -> None:
    task = TaskView.model_validate(task_view(status="archived", reason="solar_flare", colour="red"))
    assert (task.status, task.reason) == ("archived", "solar_flare")
    assert isinstance(task.status, statuses.Status)
    assert not task.has_ended
    assert TaskView.model_validate(task_view(status="archived", ended_at="2024-05-01T12:00:00Z")).has_ended
    written = task.model_dump(mode="json")
    assert (written["status"], written["reason"], "colour" in written) == ("archived", "solar_flare", False)


def test_a_description_of_a_newer_server_is_sent_back_whole() -> None:
    view = DeploymentView.model_validate(DEPLOYMENT | {"serving": {"port": 1, "protocol": "smoke", "novelty": [1]}})
    assert view.serving.model_dump(mode="json", exclude_unset=True) == {"port": 1, "protocol": "smoke", "novelty": [1]}


PARTS = st.text(st.sampled_from("aAbB./\\:\x00\x85é\u0301eÅ\u212b ß\ud800"), max_size=12) | st.sampled_from(
    ["x" * 255, "x" * 256, "é" * 128, "/".join("a" * 64), "/".join("a" * 65), "/".join(["x" * 200] * 6), "a/../b", "C:"]
)
NAMES = st.text(st.sampled_from("aAéE\u0301e/"), min_size=1, max_size=8).filter(
    lambda name: not zip_names.name_fault(name)
)


@given(PARTS)
def test_both_refuse_the_same_names(name: str) -> None:
    assert (zip_names.name_fault(name) is None) == (zip_rules.name_fault(name) is None)


@given(st.lists(st.tuples(NAMES, st.booleans()), max_size=5))
def test_both_refuse_the_same_clashes(names: list[tuple[str, bool]]) -> None:
    assert (zip_names.find_clash(names) is None) == (zip_rules.find_clash(names) is None)
