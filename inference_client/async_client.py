"""The client for programs with an event loop. Every method is the one of `InferenceClient`, awaited."""

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

import httpx

from inference_client.batches import Batch, C, Result
from inference_client.blocking import AwaitingTransport, iterate_blocking, run_blocking, sleep
from inference_client.client import InferenceClient
from inference_client.client_base import find_server
from inference_client.connection import tls_context
from inference_client.outputs import Output

P = ParamSpec("P")
T = TypeVar("T")


def _awaited(
    method: Callable[Concatenate[InferenceClient, P], T],
) -> Callable[Concatenate["AsyncInferenceClient", P], Coroutine[Any, Any, T]]:
    @wraps(method)
    async def call(self: "AsyncInferenceClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await run_blocking(method, self._client, *args, **kwargs)

    return call


def _iterated(
    method: Callable[Concatenate[InferenceClient, P], Iterator[T]],
) -> Callable[Concatenate["AsyncInferenceClient", P], AsyncIterator[T]]:
    @wraps(method)
    def iterate(self: "AsyncInferenceClient", /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        return iterate_blocking(method(self._client, *args, **kwargs))

    return iterate


class AsyncInferenceClient:
    """`InferenceClient` for an event loop: `await client.run(...)`, `async for model in client.list_models()`.

    Errors are the same. A cancelled call stops where it waits for the server. Local files are read and written in the
    event loop.
    """

    def __init__(
        self,
        server: str | None = None,
        *,
        key: str | None = None,
        timeout_s: float = 90.0,
        verify: bool | str | Path = True,
        transport: httpx.AsyncBaseTransport | None = None,
        first_contact_s: float | None = None,
    ) -> None:
        """As of `InferenceClient`. Raises `UnusableInput`. Nothing is sent yet."""
        server, key, verify = find_server(server, key, verify)
        self._http = httpx.AsyncClient(verify=tls_context(verify), transport=transport)
        self._client = InferenceClient(
            server,
            key=key,
            timeout_s=timeout_s,
            transport=AwaitingTransport(self._http),
            sleep=sleep,
            first_contact_s=first_contact_s,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections to the server."""
        await self._http.aclose()
        self._client.close()

    @property
    def server(self) -> str:
        """The server's URL, without a password."""
        return self._client.server

    @property
    def was_reached(self) -> bool:
        """Whether something at the server's address has taken a connection."""
        return self._client.was_reached

    add_model = _awaited(InferenceClient.add_model)
    list_models = _iterated(InferenceClient.list_models)
    get_model = _awaited(InferenceClient.get_model)
    list_versions = _iterated(InferenceClient.list_versions)
    change_model = _awaited(InferenceClient.change_model)
    roll_back = _awaited(InferenceClient.roll_back)
    change_version = _awaited(InferenceClient.change_version)
    delete_model = _awaited(InferenceClient.delete_model)
    delete_version = _awaited(InferenceClient.delete_version)

    deploy = _awaited(InferenceClient.deploy)
    undeploy = _awaited(InferenceClient.undeploy)
    get_deployment = _awaited(InferenceClient.get_deployment)
    list_deployments = _iterated(InferenceClient.list_deployments)
    wait_deployment = _awaited(InferenceClient.wait_deployment)

    run = _awaited(InferenceClient.run)
    submit = _awaited(InferenceClient.submit)
    status = _awaited(InferenceClient.status)
    wait = _awaited(InferenceClient.wait)
    fetch = _awaited(InferenceClient.fetch)
    output = _awaited(InferenceClient.output)
    list_files = _iterated(InferenceClient.list_files)
    read_file = _iterated(InferenceClient.read_file)
    logs = _iterated(InferenceClient.logs)
    events = _awaited(InferenceClient.events)
    attempts = _awaited(InferenceClient.attempts)
    task_page = _awaited(InferenceClient.task_page)
    cancel = _awaited(InferenceClient.cancel)
    rerun = _awaited(InferenceClient.rerun)
    delete = _awaited(InferenceClient.delete)
    list_tasks = _iterated(InferenceClient.list_tasks)

    queue = _awaited(InferenceClient.queue)
    list_consumers = _iterated(InferenceClient.list_consumers)
    drain_consumer = _awaited(InferenceClient.drain_consumer)
    resume_consumer = _awaited(InferenceClient.resume_consumer)
    watch = _iterated(InferenceClient.watch)

    whoami = _awaited(InferenceClient.whoami)
    quota = _awaited(InferenceClient.quota)
    list_keys = _iterated(InferenceClient.list_keys)
    create_key = _awaited(InferenceClient.create_key)
    rotate_key = _awaited(InferenceClient.rotate_key)
    revoke_key = _awaited(InferenceClient.revoke_key)

    async def map(
        self,
        model: str,
        cases: Iterable[C],
        *,
        label: str | None = None,
        priority: int = 0,
        progress: bool | None = None,
        on_submit: Callable[[str], None] | None = None,
    ) -> "AsyncBatch[C]":
        """As of `InferenceClient`."""

        def submit() -> Batch[C]:
            return self._client.map(
                model, cases, label=label, priority=priority, progress=progress, on_submit=on_submit
            )

        return AsyncBatch(await run_blocking(submit))


class AsyncBatch(Generic[C]):
    """`Batch` for an event loop: `async for result in batch`, and `await batch.output(result)` for its files."""

    def __init__(self, batch: Batch[C]) -> None:
        self._batch = batch
        self.label = batch.label
        self.uids = batch.uids

    def __len__(self) -> int:
        return len(self._batch)

    def __aiter__(self) -> AsyncIterator[Result[C]]:
        return iterate_blocking(iter(self._batch))

    def as_ended(self) -> AsyncIterator[Result[C]]:
        """The results in the order in which the cases end."""
        return iterate_blocking(self._batch.as_ended())

    async def output(self, result: Result[C]) -> Output:
        """The files of a result, fetched when this is first asked for. Raises the result's error."""
        return await run_blocking(lambda: result.output)

    async def wait(self, *, timeout_s: float | None = None) -> Self:
        """As of `Batch`."""
        await run_blocking(self._batch.wait, timeout_s=timeout_s)
        return self

    async def status(self) -> dict[str, int]:
        """As of `Batch`."""
        return await run_blocking(self._batch.status)

    async def cancel(self) -> dict[str, int]:
        """As of `Batch`."""
        return await run_blocking(self._batch.cancel)

    def __repr__(self) -> str:
        return repr(self._batch).replace("<Batch", "<AsyncBatch", 1)

    def _repr_html_(self) -> str:
        return self._batch._repr_html_()
