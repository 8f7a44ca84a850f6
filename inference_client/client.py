"""The Python client: the public API, typed. Methods block until they have an answer."""

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

import httpx

from inference_client.batches import Batch, BatchCalls, C, new_label
from inference_client.client_base import find_server
from inference_client.connection import Connection
from inference_client.deployment_calls import DeploymentCalls
from inference_client.download import OnWarnings, download, download_unpacked
from inference_client.errors import ReportedError, RouteNotFound, ServiceUnavailable
from inference_client.event_calls import EventCalls
from inference_client.key_calls import KeyCalls
from inference_client.model_calls import ModelCalls
from inference_client.outputs import Output
from inference_client.overview_schemas import ConsumerView, QueueView
from inference_client.pack import Inputs, OnProgress, select_inputs, zip_headers
from inference_client.paths import segment
from inference_client.progress import display_for
from inference_client.runs import run_task
from inference_client.schemas import (
    AttemptView,
    EventView,
    TaskView,
)
from inference_client.statuses import Status
from inference_client.stored_files import StoredFiles
from inference_client.waiting import wait_until_ended


class InferenceClient(ModelCalls, DeploymentCalls, KeyCalls, StoredFiles, EventCalls):
    """Speaks to one server's public API. A context manager: leaving it closes the connection.

    Methods raise the classes of `inference_client.errors`: an `InferenceError` for what the server answered
    (`ServiceUnavailable` also if it cannot be reached), a `ClientError` for faults on this side. Calls that may be
    repeated are tried a few times while the server is unavailable.
    """

    def __init__(
        self,
        server: str | None = None,
        *,
        key: str | None = None,
        timeout_s: float = 90.0,
        verify: bool | str | Path = True,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        first_contact_s: float | None = None,
    ) -> None:
        """`server` is a URL; `timeout_s` is how long the server may stay silent; `verify` may name a CA file.

        Without `server`, server, key and CA file are those that `infer` would use: from the environment, or stored by
        `infer login`.

        A server that took no connection within `first_contact_s`, all tries included, is given up; by default the tries
        are the usual ones. Raises `UnusableInput` if a value cannot be used. Nothing is sent yet.
        """
        server, key, verify = find_server(server, key, verify)
        self._connection = Connection(
            server, key=key, timeout_s=timeout_s, verify=verify, transport=transport, sleep=sleep
        )
        self._connection.first_contact_s = first_contact_s

    def run(
        self,
        model: str,
        inputs: Inputs,
        *,
        timeout_s: float | None = None,
        priority: int = 0,
        label: str | None = None,
        progress: bool | None = None,
    ) -> Output:
        """Submit, wait, and return the output as files to open: the whole job in one call.

        `inputs` as in `submit`. Shows its progress on a terminal and in a notebook, unless `progress` is False. Raises
        `TaskFailed`, whose notes hold the end of the log, and `WaitTimeout`, after which the task goes on. Interrupted,
        as by Ctrl-C, it cancels the task.
        """
        return run_task(
            display_for(progress),
            submit=partial(self.submit, model, inputs, priority=priority, label=label),
            wait=partial(self.wait, timeout_s=timeout_s),
            cancel=self.cancel,
            output=self.output,
        )

    def map(
        self,
        model: str,
        cases: Iterable[C],
        *,
        label: str | None = None,
        priority: int = 0,
        progress: bool | None = None,
        on_submit: Callable[[str], None] | None = None,
    ) -> Batch[C]:
        """Submit a task for each case, under one `label` (made up if none is given), and return them as a batch.

        Iterating over it gives a `Result` per case in their order, once each has ended: one that failed, or could not
        be submitted, has its `error` there and stops no other. Raises what would stop them all, as `ModelNotFound`.
        `on_submit` is called with each uid.
        """
        label = label or new_label(model)
        calls = BatchCalls(self.status, self.cancel, self.output, self._connection.sleep)
        batch: Batch[C] = Batch(label, calls, display_for(progress))
        batch.submit(cases, lambda case: self.submit(model, case, label=label, priority=priority), on_submit)
        return batch

    def submit(
        self,
        model: str,
        paths: Inputs,
        *,
        idempotency_key: str | None = None,
        priority: int = 0,
        label: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> str:
        """Send the input and return the task's uid. By then the task is durable.

        `model` is an id, which means its default version, or `<id>@<version>`. `paths` are a path or several, names
        with bytes or paths, or bytes; `inference_client.pack` says how they become a zip. A submission that was cut is
        repeated under the same
        `idempotency_key` (made up if none is given), so it never becomes two tasks; `on_progress` then starts over.
        """
        selection = select_inputs(paths)
        answer = self._connection.call(
            "POST",
            "/api/tasks/",
            params={"human_readable_id": model}
            | ({"priority": str(priority)} if priority else {})
            | ({"label": label} if label else {}),
            headers={**zip_headers(selection), "Idempotency-Key": idempotency_key or str(uuid.uuid4())},
            body=lambda: selection.chunks(on_progress),
            repeatable=True,
        )
        return self._parse(str, answer)

    def status(self, uid: str, *, hold_s: float = 0) -> TaskView:
        """The task as it is now; with `hold_s` (at most 60) as it is once it ended or that many seconds passed."""
        params = {"wait": f"{hold_s:g}"} if hold_s > 0 else None
        path = f"/api/tasks/{segment(uid)}/status"
        return self._parse(TaskView, self._connection.call("GET", path, params=params, repeatable=True, hold_s=hold_s))

    def wait(
        self, uid: str, *, timeout_s: float | None = None, on_change: Callable[[TaskView], None] | None = None
    ) -> TaskView:
        """Block until the task has ended, in whatever way, and return it. Raises `WaitTimeout` after `timeout_s`.

        `on_change` is called with the first view and with every view that differs from the one before. A server that
        goes away in the meantime has five minutes to come back.
        """
        return wait_until_ended(
            uid,
            lambda hold_s: self.status(uid, hold_s=hold_s),
            self._connection.sleep,
            timeout_s=timeout_s,
            on_change=on_change,
        )

    def fetch(
        self,
        uid: str,
        target: str | Path,
        on_progress: OnProgress | None = None,
        *,
        extract: bool = False,
        on_warnings: OnWarnings | None = None,
    ) -> Path:
        """Store the output zip as `target`, whole and checked against its hash, or not at all; or unpack it there.

        `on_warnings` is called with how many warnings the task has, if it has any; `status` has them. Raises
        `TaskPending`, `TaskFailed` or `OutputMissing` if there is no output.
        """
        store = download_unpacked if extract else download
        return store(self._connection, f"/api/tasks/{segment(uid)}/output", Path(target), on_progress, on_warnings)

    def output(self, uid: str, on_progress: OnProgress | None = None) -> Output:
        """The output of a finished task as files to open, in a temporary folder. Raises as `fetch` does."""
        counts: list[int] = []
        output = Output(uid, lambda target: self.fetch(uid, target, on_progress, on_warnings=counts.append))
        if counts:
            output.warnings = self.status(uid).warnings
        return output

    def logs(self, uid: str, *, follow: bool = False) -> Iterator[bytes]:
        """What the container wrote, in pieces; `follow` reads on until the task ends, however long it is silent."""
        with self._connection.open(
            "GET",
            f"/api/tasks/{segment(uid)}/logs",
            params={"follow": "true"} if follow else None,
            hold_s=None if follow else 0,
        ) as response:
            yield from response.iter_bytes()

    def events(self, uid: str) -> list[EventView]:
        """Every change of the task's status, oldest first."""
        return self._get(list[EventView], f"/api/tasks/{segment(uid)}/events")

    def attempts(self, uid: str) -> list[AttemptView]:
        """Every attempt of the task, oldest first."""
        return self._get(list[AttemptView], f"/api/tasks/{segment(uid)}/attempts")

    def task_page(self, uid: str) -> str:
        """The URL at which a browser shows the task. Raises `TaskNotFound`.

        It is the page of the server's dashboard; of a server without one the task's status as JSON, or where that needs
        a key, which a browser does not send by itself, the place in `/docs` that asks for it.
        """
        whole, server = self.status(uid).uid, self._connection.server
        try:
            self._connection.call("GET", f"/tasks/{whole}", repeatable=True)
        except RouteNotFound:
            return (
                f"{server}/docs#/tasks/show_task" if self._connection.has_key else f"{server}/api/tasks/{whole}/status"
            )
        except ServiceUnavailable:
            raise
        except ReportedError:
            # It is there, and first wants its reader to log in.
            pass
        return f"{server}/tasks/{whole}"

    def cancel(self, uid: str) -> TaskView:
        """Cancel the task and keep its record; a container that runs may take a moment to stop."""
        answer = self._connection.call("POST", f"/api/tasks/{segment(uid)}/cancel", repeatable=True)
        return self._parse(TaskView, answer)

    def rerun(self, uid: str, *, version: str = "same", priority: int = 0, idempotency_key: str | None = None) -> str:
        """Submit the stored input of a task again and return the new task's uid. By then the new task is durable.

        `version` is `same`, the model's version that the first task ran, or `default`, the one that a submission gets.
        The key is as of `submit`. Raises `InputMissing` if the input is no longer stored.
        """
        answer = self._connection.call(
            "POST",
            f"/api/tasks/{segment(uid)}/rerun",
            params={"version": version} | ({"priority": str(priority)} if priority else {}),
            headers={"Idempotency-Key": idempotency_key or str(uuid.uuid4())},
            repeatable=True,
        )
        return self._parse(str, answer)

    def delete(self, uid: str) -> None:
        """Cancel what runs and delete what is stored. Doing so twice is not an error."""
        self._connection.call("DELETE", f"/api/tasks/{segment(uid)}", repeatable=True)

    def list_tasks(
        self,
        *,
        status: Sequence[Status | str] = (),
        model: str | None = None,
        owner: str | None = None,
        since: datetime | None = None,
        label: str | None = None,
        text: str | None = None,
    ) -> Iterator[TaskView]:
        """The tasks that this key may see and all filters let through, newest first, fetched page by page.

        They are those of the key's owner, and with the scope operate everybody's. `owner="*"` asks for everybody's
        expressly; `since` needs a zone. Raises `Unauthenticated` without a key, `PermissionDenied` for another owner's.
        """
        filters: dict[str, str | list[str]] = {"status": [str(word) for word in status]} if status else {}
        moment = since.isoformat() if since else None
        given = {"model": model, "owner": owner, "since": moment, "label": label, "q": text}
        filters |= {name: value for name, value in given.items() if value is not None}
        return self._pages("/api/tasks/", TaskView, lambda task: task.uid, filters)

    # The server

    def queue(self) -> QueueView:
        """How many tasks wait and run, and those of them that this key may see, at most 100 of each."""
        return self._get(QueueView, "/api/queue")

    def list_consumers(self) -> Iterator[ConsumerView]:
        """Every consumer, fetched page by page. Raises `Unauthenticated` without a key."""
        return self._pages("/api/consumers/", ConsumerView, lambda view: view.name)

    def drain_consumer(self, name: str) -> ConsumerView:
        """Let a consumer finish what it has and take nothing new. Raises `ConsumerNotFound`, `PermissionDenied`."""
        return self._order(name, "drain")

    def resume_consumer(self, name: str) -> ConsumerView:
        """Let a consumer that drains take work again. Raises `ConsumerNotFound`, `PermissionDenied`."""
        return self._order(name, "resume")

    def _order(self, name: str, what: str) -> ConsumerView:
        path = f"/api/consumers/{segment(name)}/{what}"
        return self._parse(ConsumerView, self._connection.call("POST", path, repeatable=True))
