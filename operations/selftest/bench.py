"""What the faults work with: the client, the stack, two models made for the time of the test, and every task's uid."""

import json
import secrets
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import httpx

from inference_client import InferenceClient
from inference_client.errors import InferenceError, ServiceUnavailable
from inference_client.models import ModelRegistration
from inference_client.schemas import TaskView
from operations.selftest.stack import ComposeStack, StackError

MIB = 1024**2
MEMORY_BYTES = 256 * MIB
LIMIT_S = 3
PATIENCE_S = 300.0
"""How long a part may take to be back, and a task to end."""
_ENDS = ("finished", "failed", "cancelled")
_PROGRAM = """
import json, pathlib, sys, time
order = json.loads(pathlib.Path("/input/order.json").read_text())
time.sleep(order["seconds"])
block = b"x" * order["memory"]
pathlib.Path("/output/number").write_text(order["number"])
sys.exit(order["code"])
"""


class FaultNoticedError(Exception):
    """The stack did not do what it promises; the text says what it did."""


@dataclass
class Bench:
    """One run of the test."""

    client: InferenceClient
    stack: ComposeStack
    server: str
    key: str | None = field(repr=False)
    certificate: str
    """The file with what clients must trust."""
    image: str = field(default_factory=lambda: f"inference-server-selftest:{secrets.token_hex(4)}")
    model: str = field(default_factory=lambda: f"selftest-{secrets.token_hex(4)}")
    accepted: list[str] = field(default_factory=list)
    """The uid of every submission that was acknowledged."""
    numbers: dict[str, str] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)

    @property
    def short_model(self) -> str:
        """The model whose runs end after `LIMIT_S`."""
        return f"{self.model}-short"

    def submit(
        self,
        *,
        seconds: float = 0,
        memory: int = 0,
        code: int = 0,
        model: str | None = None,
        key: str | None = None,
        number: str | None = None,
        ballast: int = 0,
        on_progress: Callable[[int, int | None], None] | None = None,
    ) -> str:
        """Submit until the server acknowledges. Raises `FaultNoticedError` if it never does."""
        number, key = number or secrets.token_hex(8), key or secrets.token_hex(16)
        order = {"seconds": seconds, "memory": memory, "code": code, "number": number}
        files = {"order.json": json.dumps(order).encode(), "ballast": secrets.token_bytes(ballast)}
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                uid = self.client.submit(model or self.model, files, idempotency_key=key, on_progress=on_progress)
                break
            except ServiceUnavailable as error:
                if time.monotonic() > until:
                    raise FaultNoticedError(f"no submission is accepted any more: {error}") from error
                time.sleep(1)
        if uid not in self.accepted:
            self.accepted.append(uid)
            self.numbers[uid] = number
        return uid

    def wait_running(self, uid: str) -> None:
        """Until the task runs. Raises `FaultNoticedError`."""
        self.until(lambda: self.client.status(uid, hold_s=1).status == "running", "the task does not start")

    def ended(self, uid: str) -> TaskView:
        """The task once it has ended. Raises `FaultNoticedError`."""
        seen: list[TaskView] = []

        def has_ended() -> bool:
            seen[:] = [self.client.status(uid, hold_s=5)]
            return seen[0].has_ended

        self.until(has_ended, "the task does not end")
        return seen[0]

    def expect_output(self, uid: str) -> str:
        """Wait for the task's own output; returns what to show. Raises `FaultNoticedError`."""
        view = self.ended(uid)
        if view.status != "finished":
            raise FaultNoticedError(f"{view.status}, {view.reason}: {view.detail}")
        with self.client.output(uid) as output:
            if output["number"].read_text() != self.numbers[uid]:
                raise FaultNoticedError("finished with an output that is not its own")
        return f"finished in attempt {view.attempt}"

    def ends(self, uid: str) -> int:
        """How often the task ended."""
        return sum(event.new_status in _ENDS for event in self.client.events(uid))

    def send(self, data: bytes) -> int:
        """Post a body as it is; returns the code of the answer."""
        headers = {"Content-Type": "application/zip"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        query = {"human_readable_id": self.model}
        trusted = ssl.create_default_context(cafile=self.certificate)
        url = f"{self.server}/api/tasks/"
        return httpx.post(url, params=query, content=data, headers=headers, verify=trusted).status_code

    def left(self) -> int:
        """How many containers of the test's tasks remain."""
        with suppress(FaultNoticedError):
            self.until(lambda: not any(map(self.stack.containers, self.accepted)), "containers remain")
        return sum(len(self.stack.containers(uid)) for uid in self.accepted)

    def until(self, condition: Callable[[], bool], otherwise: str) -> None:
        """Wait, also through a server that is away. Raises `FaultNoticedError`."""
        until = time.monotonic() + PATIENCE_S
        while True:
            with suppress(ServiceUnavailable):
                if condition():
                    return
            if time.monotonic() > until:
                raise FaultNoticedError(f"{otherwise} within {PATIENCE_S:.0f} s")
            time.sleep(0.5)

    @contextmanager
    def killed(self, *services: str) -> Iterator[None]:
        """Services are killed when the block begins, and started when it ends."""
        self.stack.kill(*services)
        try:
            yield
        finally:
            self.stack.start(*services)


@contextmanager
def open_bench(
    client: InferenceClient, stack: ComposeStack, server: str, key: str | None, certificate: str
) -> Iterator[Bench]:
    """Make the image and the models, and remove both afterwards, with every task. Raises `StackError`."""
    bench = Bench(client, stack, server, key, certificate)
    stack.build(bench.image, f"FROM {stack.image()}\nCMD {json.dumps(['python', '-c', _PROGRAM])}\n")
    try:
        for model, limit_s in ((bench.model, 600), (bench.short_model, LIMIT_S)):
            registration = ModelRegistration(
                human_readable_id=model,
                container_tag=bench.image,
                description="made by inference-server selftest",
                pull_policy="never",
                time_limit_s=limit_s,
                memory_limit_bytes=MEMORY_BYTES,
            )
            try:
                client.add_model(registration)
            except InferenceError as error:
                raise StackError(f"the models of the test cannot be registered: {error}") from error
        yield bench
    finally:
        for uid in bench.accepted:
            with suppress(InferenceError):
                client.delete(uid)
        for model in (bench.model, bench.short_model):
            with suppress(InferenceError):
                client.delete_model(model)
        with suppress(StackError):
            stack.remove_image(bench.image)
