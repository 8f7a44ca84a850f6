"""The Python client: what the public API offers, typed. One connection; methods block until they have an answer."""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter, ValidationError

from contract.deployments import DeploymentView
from contract.errors import InferenceError, ServiceUnavailable
from contract.schemas import ModelRegistration, ModelView, TaskView
from contract.serving import Serving
from inference_client.connection import Connection
from inference_client.download import download
from inference_client.errors import UnusableInput, WaitTimeout
from inference_client.multipart import MultipartFile
from inference_client.pack import OnProgress, Selection, select, select_zip
from inference_client.readiness import wait_until_ready
from inference_client.units import format_duration

LONG_HOLD_S = 30.0
"""How long the server is asked to hold a status while nobody watches it change."""
SHORT_HOLD_S = 2.0
"""The same while somebody does."""
OUTAGE_PATIENCE_S = 300.0
"""How long `wait` goes on asking a server that answered before and now does not."""
PAGE_SIZE = 100

T = TypeVar("T")


class InferenceClient:
    """Speaks to one server's public API. A context manager: leaving it closes the connection.

    Methods raise the classes of `contract.errors` for the server's answers (`ServiceUnavailable` also where it cannot
    be reached) and of `inference_client.errors` for faults on this side. Calls that may be repeated are repeated a few
    times while the server is unavailable.
    """

    def __init__(
        self,
        server: str,
        *,
        key: str | None = None,
        timeout_s: float = 90.0,
        verify: bool | str | Path = True,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`server` is a URL; `timeout_s` bounds the server's silence; `verify` may name a CA file.

        Raises `UnusableInput` if one of them cannot be used. Nothing is sent yet.
        """
        self._connection = Connection(
            server, key=key, timeout_s=timeout_s, verify=verify, transport=transport, sleep=sleep
        )
        self._sleep = sleep

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    @property
    def server(self) -> str:
        """The server's URL, without a password."""
        return self._connection.server

    # Models

    def add_model(
        self, registration: ModelRegistration, archive: Path | None = None, *, on_progress: OnProgress | None = None
    ) -> ModelView:
        """Register a model; `archive` is a zip, or a folder that becomes one. It settles `model_available`.

        Not repeated by itself: a second registration of the same id would be refused.
        """
        fields = registration.model_dump(exclude_none=True, exclude_defaults=True)
        params = {name: _query_value(value) for name, value in fields.items()}
        params["model_available"] = _query_value(archive is not None)
        if archive is None:
            answer = self._connection.call("POST", "/api/models/", params=params, repeatable=False)
        else:
            selection = select([archive]) if archive.is_dir() else select_zip(archive)
            part = MultipartFile("zip_file", f"{registration.human_readable_id}.zip", selection)
            answer = self._connection.call(
                "POST",
                "/api/models/",
                params=params,
                headers=part.headers(),
                body=lambda: part.chunks(on_progress),
                repeatable=False,
            )
        return self._parse(ModelView, answer)

    def list_models(self) -> Iterator[ModelView]:
        """Every model in its newest version, fetched page by page."""
        return self._pages("/api/models/", ModelView, lambda model: model.human_readable_id)

    def get_model(self, human_readable_id: str) -> ModelView:
        """One model. Raises `ModelNotFound`."""
        answer = self._connection.call("GET", f"/api/models/{_segment(human_readable_id)}", repeatable=True)
        return self._parse(ModelView, answer)

    # Deployments

    def deploy(self, human_readable_id: str, serving: Serving) -> DeploymentView:
        """Keep a model's newest version warm, or change how it is. Raises `ModelNotFound`, `NameTaken`."""
        answer = self._connection.call(
            "POST",
            _deployment(human_readable_id),
            headers={"Content-Type": "application/json"},
            body=lambda: [serving.model_dump_json(exclude_unset=True).encode()],
            repeatable=True,
        )
        return self._parse(DeploymentView, answer)

    def undeploy(self, human_readable_id: str) -> None:
        """Keep a model warm no longer. Again is no error. Raises `ModelNotFound`."""
        self._connection.call("DELETE", _deployment(human_readable_id), repeatable=True)

    def get_deployment(self, human_readable_id: str) -> DeploymentView:
        """One deployment. Raises `DeploymentNotFound`."""
        return self._parse(
            DeploymentView, self._connection.call("GET", _deployment(human_readable_id), repeatable=True)
        )

    def list_deployments(self) -> Iterator[DeploymentView]:
        """Every deployment, fetched page by page."""
        return self._pages("/api/deployments/", DeploymentView, lambda view: view.human_readable_id)

    def wait_deployment(
        self,
        human_readable_id: str,
        *,
        timeout_s: float | None = None,
        on_change: Callable[[DeploymentView], None] | None = None,
    ) -> DeploymentView:
        """Block until all replicas that are started are ready. One that nobody calls and nothing keeps warm is ready.

        `on_change` is called as by `wait`. Raises `DeploymentFailing` where a replica ended by itself, `WaitTimeout`.
        """
        return wait_until_ready(
            lambda: self.get_deployment(human_readable_id), self._sleep, timeout_s=timeout_s, on_change=on_change
        )

    # Tasks

    def submit(
        self,
        model: str,
        paths: Path | Sequence[Path],
        *,
        idempotency_key: str | None = None,
        priority: int = 0,
        on_progress: OnProgress | None = None,
    ) -> str:
        """Send the input and return the task's uid; the task is durable then.

        `paths` are what `inference_client.pack` makes a zip of. A submission that was cut is repeated under the same
        `idempotency_key` (made up if none is given), so it never becomes two tasks; `on_progress` then starts over.
        """
        selection = select([paths] if isinstance(paths, Path) else paths)
        answer = self._connection.call(
            "POST",
            "/api/tasks/",
            params={"human_readable_id": model} | ({"priority": str(priority)} if priority else {}),
            headers=_submission_headers(selection, idempotency_key or str(uuid.uuid4())),
            body=lambda: selection.chunks(on_progress),
            repeatable=True,
        )
        return self._parse(str, answer)

    def status(self, uid: str, *, hold_s: float = 0) -> TaskView:
        """The task as it is, or, with `hold_s` (at most 60), as it is once it ended or so many seconds passed."""
        params = {"wait": f"{hold_s:g}"} if hold_s > 0 else None
        path = f"/api/tasks/{_segment(uid)}/status"
        return self._parse(TaskView, self._connection.call("GET", path, params=params, repeatable=True, hold_s=hold_s))

    def wait(
        self, uid: str, *, timeout_s: float | None = None, on_change: Callable[[TaskView], None] | None = None
    ) -> TaskView:
        """Block until the task has ended, however it ended, and return it. Raises `WaitTimeout` after `timeout_s`.

        `on_change` is called with the first view and with every view that differs from the one before. A server that
        goes away while being waited for has `OUTAGE_PATIENCE_S` to come back.
        """
        started = answered = time.monotonic()
        hold_s = LONG_HOLD_S if on_change is None else SHORT_HOLD_S
        seen: TaskView | None = None
        while True:
            asked = time.monotonic()
            left_s = hold_s if timeout_s is None else started + timeout_s - asked
            try:
                task = self.status(uid, hold_s=0 if seen is None else max(0.0, min(hold_s, left_s)))
            except ServiceUnavailable:
                if seen is None or time.monotonic() - answered > OUTAGE_PATIENCE_S:
                    raise
                continue
            answered = time.monotonic()
            if on_change is not None and task != seen:
                on_change(task)
            if task.status.is_terminal:
                return task
            if timeout_s is not None and left_s <= 0:
                raise WaitTimeout(
                    f"the task has not ended within {format_duration(timeout_s)}; it goes on",
                    uid=uid,
                    status=task.status,
                )
            # A server that will not hold its answer is not asked without a pause.
            if seen is not None and answered - asked < min(1.0, left_s):
                self._sleep(1.0)
            seen = task

    def fetch(self, uid: str, target: Path, on_progress: OnProgress | None = None) -> Path:
        """Store the output zip as `target`, whole and checked against its hash, or not at all.

        Raises `TaskPending`, `TaskFailed` or `OutputMissing` where there is none.
        """
        return download(self._connection, f"/api/tasks/{_segment(uid)}/output", target, on_progress)

    def logs(self, uid: str, *, follow: bool = False) -> Iterator[bytes]:
        """What the container wrote, in pieces; with `follow` until the task ends, however long it is silent."""
        with self._connection.open(
            "GET",
            f"/api/tasks/{_segment(uid)}/logs",
            params={"follow": "true"} if follow else None,
            hold_s=None if follow else 0,
        ) as response:
            yield from response.iter_bytes()

    def cancel(self, uid: str) -> TaskView:
        """Ask for the task's end and keep its record; what runs may take a moment to stop."""
        answer = self._connection.call("POST", f"/api/tasks/{_segment(uid)}/cancel", repeatable=True)
        return self._parse(TaskView, answer)

    def delete(self, uid: str) -> None:
        """Cancel what runs and delete what is stored. Deleting again is no error."""
        self._connection.call("DELETE", f"/api/tasks/{_segment(uid)}", repeatable=True)

    def list_tasks(self) -> Iterator[TaskView]:
        """The tasks of this key's owner, fetched page by page. Raises `Unauthenticated` without a key."""
        return self._pages("/api/tasks/", TaskView, lambda task: task.uid)

    def _pages(self, path: str, item: type[T], key_of: Callable[[T], str]) -> Iterator[T]:
        after: str | None = None
        while True:
            params = {"limit": str(PAGE_SIZE)} | ({} if after is None else {"after": after})
            page: list[T] = self._parse(list[item], self._connection.call("GET", path, params=params, repeatable=True))  # type: ignore[valid-type]
            yield from page
            if len(page) < PAGE_SIZE:
                return
            after = key_of(page[-1])

    def _parse(self, kind: type[T], answer: bytes) -> T:
        try:
            return TypeAdapter(kind).validate_json(answer)
        except ValidationError as error:
            raise InferenceError(
                f"{self.server} answered what an InferenceServer of this version does not; is the URL right?"
            ) from error


def _segment(name: str) -> str:
    # An empty name would make another path: the list's.
    if not name or name in (".", ".."):
        raise UnusableInput(f"{name!r} names nothing on the server")
    return quote(name, safe="")


def _deployment(human_readable_id: str) -> str:
    return f"/api/models/{_segment(human_readable_id)}/deployment"


def _query_value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _submission_headers(selection: Selection, idempotency_key: str) -> Mapping[str, str]:
    headers = {"Content-Type": "application/zip", "Idempotency-Key": idempotency_key}
    if selection.content_length is not None:
        headers["Content-Length"] = str(selection.content_length)
    return headers
