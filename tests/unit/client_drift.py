"""Compares what the client knows of the server with the server's OpenAPI document. Finders return sentences."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from pydantic import BaseModel

from inference_client import InferenceClient, ModelRegistration
from inference_client.serving import ServingSpec
from inference_client.statuses import Word
from tests.unit.client_peer import MODEL, UID, model_view, task_view, version_view

Document = dict[str, Any]
Schema = Mapping[str, Any]
_LIMITS = ("pattern", "minimum", "maximum", "minLength", "maxLength")
_MOMENT = "2024-05-01T12:00:00Z"
DEPLOYMENT = {
    "human_readable_id": MODEL,
    "model_version": 1,
    "serving": {"port": 8001},
    "status": "idle",
    "failures": 0,
    "replicas": [],
    "created_at": _MOMENT,
    "updated_at": _MOMENT,
}


CONSUMER = {
    **dict.fromkeys(("owner", "gpu_uuid", "host", "detail", "task")),
    "name": "host-a/0",
    "kinds": ["cpu"],
    "status": "free",
    "replicas": [],
    "replica_slots": 8,
    "first_seen_at": _MOMENT,
    "seen_at": _MOMENT,
}


KEY = {
    "id": "0" * 16,
    "owner": "ada",
    "scopes": ["submit"],
    "state": "valid",
    "created_at": _MOMENT,
    **dict.fromkeys(("expires_at", "revoked_at", "last_used_at")),
}
EVENT = {
    **dict.fromkeys(("owner", "old_status", "reason")),
    "uid": UID,
    "human_readable_id": MODEL,
    "at": _MOMENT,
    "new_status": "queued",
    "fence": 0,
}
ME = {
    **dict.fromkeys(("owner", "key_id", "expires_at")),
    "scopes": [],
    "requires_key": False,
    "anonymous_scopes": ["submit"],
}
FILE = {"path": "a.txt", "size_bytes": 1, "crc32": "0" * 8, "modified_at": None, "media_type": "text/plain"}


def find_view_drift(document: Document, views: Iterable[type[BaseModel]]) -> list[str]:
    """Fields of an answer that the server does not have, or may fill with what the client does not read."""
    faults = []
    for view in views:
        known: Schema = document["components"]["schemas"].get(view.__name__, {})
        own = view.model_json_schema()
        for name, field in own["properties"].items():
            place = f"{view.__name__}.{name}"
            if name not in known.get("properties", {}):
                faults.append(f"{place}: the server has no such field")
                continue
            sent = _kinds(known["properties"][name], document["components"]["schemas"])
            unread = [kind for kind in sent if not _reads(_kinds(field, own.get("$defs", {})), kind)]
            faults += [f"{place}: the client does not read {kind}" for kind in unread]
            if name in own.get("required", ()) and name not in known.get("required", ()):
                faults.append(f"{place}: the server may leave it out")
    return faults


def find_input_drift(own: type[BaseModel], known: Schema, components: Schema) -> list[str]:
    """Fields of a request that the server (its JSON schema `known`) would refuse, or take for something else."""
    faults = []
    schema = own.model_json_schema()
    for name, field in schema["properties"].items():
        place = f"{own.__name__}.{name}"
        if name not in known["properties"]:
            faults.append(f"{place}: the server takes no such field")
            continue
        taken = known["properties"][name]
        sent, accepted = _kinds(field, schema.get("$defs", {})), _kinds(taken, components)
        # Any text may be sent where the server takes some: it judges.
        unread = [kind for kind in sent if kind != "string" and not _reads(accepted, kind)]
        faults += [f"{place}: the server does not take {kind}" for kind in unread]
        if "string" in sent and not any(kind.startswith(("string", "word")) for kind in accepted):
            faults.append(f"{place}: the server takes no text")
        if field.get("default") != taken.get("default"):
            faults.append(f"{place}: the server's default is {taken.get('default')!r}")
        faults += [
            f"{place}: {limit} is {taken.get(limit)!r} at the server"
            for limit in _LIMITS
            if limit in field and field[limit] != taken.get(limit)
        ]
    missing = set(known.get("required", ())) - set(schema.get("required", ()))
    return faults + [f"{own.__name__}.{name}: the server requires it" for name in sorted(missing)]


def query_schema(document: Document, method: str, path: str) -> Schema:
    """The query of an operation, as the JSON schema of an object."""
    declared = [each for each in document["paths"][path][method]["parameters"] if each["in"] == "query"]
    return {
        "properties": {each["name"]: each["schema"] for each in declared},
        "required": [each["name"] for each in declared if each["required"]],
    }


def find_word_drift(document: Document, vocabularies: Iterable[type[Word]]) -> list[str]:
    """Words that only one of the two knows."""
    faults = []
    for vocabulary in vocabularies:
        name, own = vocabulary.__name__, set(map(str, vocabulary))
        known = set(document["components"]["schemas"].get(name, {}).get("enum", ()))
        faults += [f"{name}: the server does not say {word}" for word in sorted(own - known)]
        faults += [f"{name}: the client does not know {word}" for word in sorted(known - own)]
    return faults


ErrorTree = dict[str, tuple[int, str]]
"""By the name of an error's class: its HTTP status and the name of the class above it."""


def describe_errors(classes: Iterable[Any]) -> ErrorTree:
    return {cls.__name__: (cls.http_status, cls.__mro__[1].__name__) for cls in classes}


def find_error_drift(document: Document, known: ErrorTree, own: ErrorTree, *, never_answered: set[str]) -> list[str]:
    """Errors that only one of the two knows, or that differ in status or place."""
    documented = set(re.findall(r"'error': '(\w+)'", str(document["paths"])))
    faults = [f"{name}: the server answers it, the client does not know it" for name in sorted(documented - own.keys())]
    faults += [f"{name}: missing in the client" for name in known.keys() - own.keys() - never_answered - documented]
    faults += [f"{name}: missing in the server" for name in own.keys() - known.keys()]
    root = "InferenceError"
    for name in own.keys() & known.keys():
        if own[name][0] != known[name][0]:
            faults.append(f"{name}: its status is {known[name][0]} at the server")
        if name != root and own[name][1] != known[name][1]:
            faults.append(f"{name}: it stands below {known[name][1]} at the server")
    return faults


def find_call_drift(document: Document, sent: Iterable[httpx.Request]) -> list[str]:
    """Requests that the document does not describe: their path, query, kind of body or own headers."""
    faults = []
    for request in sent:
        call = f"{request.method} {request.url.path}"
        path = next((known for known in document["paths"] if _matches(known, request.url.path)), None)
        operation = document["paths"].get(path, {}).get(request.method.lower())
        if operation is None:
            faults.append(f"{call}: no such call")
            continue
        declared = {(each["in"], each["name"].lower()) for each in operation.get("parameters", ())}
        faults += [f"{call}: no parameter {name}" for name in request.url.params if ("query", name) not in declared]
        if "idempotency-key" in request.headers and ("header", "idempotency-key") not in declared:
            faults.append(f"{call}: no header Idempotency-Key")
        kind = request.headers.get("content-type")
        if kind is not None and kind not in operation.get("requestBody", {}).get("content", {}):
            faults.append(f"{call}: no body of {kind}")
    return faults


def record_calls(folder: Path) -> list[httpx.Request]:
    """Every call of the client with every option, as requests."""
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        request.read()
        sent.append(request)
        content = _answer_to(request)
        return httpx.Response(
            200, content=iter([content]), headers={"ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        )

    (folder / "input.txt").write_text("input")
    every_field = ModelRegistration(
        human_readable_id=MODEL,
        container_tag="tag",
        description="text",
        use_gpu=True,
        pull_policy="never",
        isolation="compatible",
        time_limit_s=1,
        memory_limit_bytes=2**30,
        shared_memory_bytes=2**20,
        temporary_bytes=2**20,
        pids_limit=16,
        cpus=0.5,
        pin=False,
        restricted=True,
        replace=True,
    )
    with InferenceClient("http://server", transport=httpx.MockTransport(answer)) as client:
        client.add_model(every_field, folder)
        client.add_model(ModelRegistration(human_readable_id=MODEL, container_tag="tag"))
        list(client.list_models())
        client.get_model(MODEL)
        list(client.list_versions(MODEL))
        client.change_model(MODEL, default_version=1, description="text", retired=False)
        client.change_model(MODEL, restricted=True, users=["bob"], owner="ada")
        client.change_version(MODEL, 1, description="text", retired=True)
        client.roll_back(MODEL)
        client.delete_version(MODEL, 1)
        client.delete_model(MODEL)
        client.deploy(MODEL, ServingSpec(port=8001))
        client.get_deployment(MODEL)
        list(client.list_deployments())
        client.undeploy(MODEL)
        client.submit(MODEL, folder, idempotency_key="key", priority=1, label="study 7")
        client.status(UID, hold_s=1)
        list(client.logs(UID, follow=True))
        client.cancel(UID)
        list(client.list_tasks())
        list(client.list_tasks(status=["failed"], model=MODEL, owner="*", since=datetime.now(UTC), label="y", text="x"))
        client.rerun(UID, version="default", priority=1, idempotency_key="key")
        list(client.list_files(UID))
        list(client.list_files(UID, of="input"))
        list(client.read_file(UID, "a.txt"))
        list(client.read_file(UID, "a.txt", of="input"))
        client.events(UID)
        client.attempts(UID)
        client.queue()
        list(client.list_consumers())
        next(client.watch(types=["task"], uids=[UID], after=1))
        client.whoami()
        client.quota(owner="ada")
        list(client.list_keys(owner="ada"))
        client.create_key(["submit"], owner="ada", lifetime_s=60, quotas={"queued": 10, "stored": None})
        client.rotate_key("0" * 16, overlap_s=60)
        client.revoke_key("0" * 16)
        client.drain_consumer("host-a")
        client.resume_consumer("host-a")
        client.fetch(UID, folder / "out.zip")
        client.delete(UID)
    return sent


def _answer_to(request: httpx.Request) -> bytes:
    path = request.url.path
    after = "after" in request.url.params
    if path == "/api/events":
        return f"event: task\nid: 2\ndata: {json.dumps(EVENT)}\n\n".encode()
    known: dict[tuple[str, str], Any] = {
        ("POST", "/api/tasks/"): UID,
        ("POST", f"/api/tasks/{UID}/rerun"): UID,
        ("POST", "/api/keys/"): {**KEY, "key": "is_"},
        ("POST", f"/api/keys/{'0' * 16}/rotate"): {**KEY, "key": "is_"},
        ("GET", "/api/me"): ME,
        ("GET", "/api/quota"): {"owner": None, "quotas": []},
        ("GET", "/api/queue"): {"lanes": [], "tasks": []},
        ("GET", f"/api/tasks/{UID}/events"): [],
        ("GET", f"/api/tasks/{UID}/attempts"): [],
    }
    if (request.method, path) in known:
        return json.dumps(known[request.method, path]).encode()
    if path.endswith(("/", "/files")) and request.method == "GET":
        views = {
            "tasks": task_view(),
            "models": model_view(),
            "deployments": DEPLOYMENT,
            "consumers": CONSUMER,
            "keys": KEY,
        }
        view = FILE if path.endswith("/files") else views[path.split("/")[2]]
        # A full page: the client asks for the next one.
        return json.dumps([view] * (1 if after else 100)).encode()
    if "/versions" in path:
        return _answer_about_versions(path, is_last_page=after)
    if path.endswith(("/deployment", "/drain", "/resume")):
        return json.dumps(DEPLOYMENT if path.endswith("/deployment") else CONSUMER).encode()
    return json.dumps(model_view() if path.startswith("/api/models/") else task_view()).encode()


def _answer_about_versions(path: str, *, is_last_page: bool) -> bytes:
    if not path.endswith("/versions"):
        return json.dumps(version_view()).encode()
    versions = [version_view(), version_view(version=1, default=False)]
    return json.dumps(versions * (1 if is_last_page else 50)).encode()


def _matches(template: str, path: str) -> bool:
    return re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path) is not None


def _kinds(schema: Schema, components: Schema) -> set[str]:
    """What a value may be: types in words; a word of an enum is `word x`, an object is named, an array says of what."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return _kinds(components[name], components) if "enum" in components.get(name, {}) else {name}
    if "anyOf" in schema:
        return set().union(*(_kinds(each, components) for each in schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return {f"word {word}" for word in schema.get("enum", [schema.get("const")])}
    if schema["type"] == "array":
        return {f"list of {kind}" for kind in _kinds(schema["items"], components)}
    return {" ".join(filter(None, [schema["type"], schema.get("format")]))}


def _reads(own: set[str], kind: str) -> bool:
    """Whether a reader of `own` kinds reads `kind` too."""
    if kind in own:
        return True
    return any(
        (wide == "string" and kind.startswith(("string", "word ")))
        or (wide == "number" and kind == "integer")
        or (wide == "list of string" and kind.startswith(("list of string", "list of word ")))
        for wide in own
    )
