"""One task's life over the private API's own HTTP, without a container: a client's calls and its consumer's."""

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import httpx

from contract.access import CALLER_KEY_HEADER
from contract.claims import ClaimRequest
from contract.heartbeats import Heartbeat
from contract.private_client import PrivateClient
from contract.schemas import Commit, ConsumerRegistration
from contract.statuses import Phase
from tests.zips import make_zip

KINDS = ("submit", "poll", "claim", "input", "begin", "beat", "watch", "log", "upload", "commit", "fetch")
"""The kinds of calls, in the order of their first. A life has two beats."""
INPUT = make_zip({"a.bin": bytes(range(256)) * 3})
OUTPUT = make_zip({"b.bin": bytes(range(256)) * 3})


def _nothing(_kind: str) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass
class TaskLife:
    """A client and a consumer of an own name."""

    http: httpx.Client
    """A door's."""
    consumer: PrivateClient
    key: str
    name: str
    folder: Path
    """For inputs."""
    by: Callable[[str], AbstractContextManager[None]] = _nothing
    """Entered around each call, with its kind."""
    _numbers: "count[int]" = field(default_factory=lambda: count(1))

    def register(self) -> None:
        """Before the first life."""
        self.consumer.register(ConsumerRegistration(consumer=self.name, process=self.name))

    def live(self, model: str) -> None:
        """From the submission to the output in the client's hands."""
        headers = {CALLER_KEY_HEADER: self.key}
        with self.by("submit"):
            posted = self.http.post(
                f"/api/tasks/?human_readable_id={model}",
                content=INPUT,
                headers={**headers, "content-type": "application/zip"},
            )
        assert posted.status_code == 200, posted.text
        uid = posted.json()
        with self.by("poll"):
            assert self.http.get(f"/api/tasks/{uid}", headers=headers).status_code == 551
        self.run(uid)
        with self.by("fetch"):
            answer = self.http.get(f"/api/tasks/{uid}", headers=headers)
        assert answer.content == OUTPUT, answer.text

    def run(self, uid: str) -> None:
        """What the consumer calls."""
        request = ClaimRequest(
            consumer=self.name, process=self.name, number=next(self._numbers), holds=[], uid=uid, replica_slots=8
        )
        with self.by("claim"):
            held = self.consumer.claim(request)
        assert held is not None, "nothing could be claimed"
        uid, fence = held.uid, held.fence
        with self.by("input"):
            target = self.folder / f"{uid}.zip"
            self.consumer.fetch_input(uid, fence, target)
            target.unlink()
        with self.by("begin"):
            self.consumer.begin(uid, fence)
        with self.by("beat"):
            self.consumer.beat(uid, fence, Heartbeat(consumer=self.name, phase=Phase.RUNNING))
        with self.by("watch"):
            self.consumer.wait_for_cancel(uid, fence, 0)
        with self.by("log"):
            self.consumer.append_log(uid, fence, 0, b"hello\n")
        with self.by("beat"):
            self.consumer.beat(uid, fence, Heartbeat(consumer=self.name, phase=Phase.DELIVERING))
        with self.by("upload"):
            self.consumer.upload_output(uid, fence, [OUTPUT])
        with self.by("commit"):
            digest = hashlib.sha256(OUTPUT).hexdigest()
            self.consumer.commit(uid, fence, Commit(consumer=self.name, sha256=digest, size_bytes=len(OUTPUT)))
