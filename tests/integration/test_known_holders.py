"""Who holds an attempt is remembered between its calls; whether it still does never is.

What ends an attempt happens behind the private API's back here, as another private API over the same database would do.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from contract.access import ANONYMOUS, Scope
from contract.claims import ClaimRequest
from contract.errors import PermissionDenied, StaleFence
from contract.heartbeats import Heartbeat
from contract.private_client import PrivateClient
from contract.schemas import Assignment, Commit, ConsumerRegistration, Failure, Release, Settled
from contract.statuses import Phase, Reason, Status
from private_api.database import Database
from private_api.keys import create_key
from private_api.leases import LEASE
from private_api.placement.holders import Holders
from private_api.tables import ConsumerRow
from private_api.tasks.cancel import cancel_task
from private_api.tasks.settle import fail_task, release_task
from tests.running_api import RunningApi
from tests.zips import make_zip

COMMIT = Commit(consumer="ada", sha256="0" * 64, size_bytes=1)


@dataclass(frozen=True)
class Held:
    """An attempt of which the private API has heard before, and its consumer."""

    consumer: PrivateClient
    task: Assignment
    database: Database

    def beat(self) -> bool:
        beat = Heartbeat(consumer="ada", phase=Phase.RUNNING)
        return self.consumer.beat(self.task.uid, self.task.fence, beat).cancel

    def release(self) -> None:
        """The task goes back to the queue."""
        release = Release(consumer="ada", detail="away", blameless=True)
        release_task(self.database, self.task.uid, self.task.fence, release)

    def take_over(self) -> None:
        """And from there to another consumer."""
        self.release()
        assert self.consumer.claim(ClaimRequest(consumer="bob")) is not None

    def fail(self) -> None:
        failure = Failure(consumer="ada", reason=Reason.EXIT_CODE, detail="no", exit_code=1)
        fail_task(self.database, self.task.uid, self.task.fence, failure)


@pytest.fixture
def held(private_api: RunningApi, database: Database) -> Iterator[Held]:
    with private_api.client() as http, private_api.consumer() as consumer:
        http.post("/api/models/", params={"human_readable_id": "echo", "container_tag": "echo:1"})
        http.post("/api/tasks/?human_readable_id=echo", files={"zip_file": make_zip()})
        task = consumer.claim(ClaimRequest(consumer="ada"))
        assert task is not None
        held = Held(consumer, task, database)
        assert not held.beat()
        yield held


@pytest.mark.parametrize("end", [Held.release, Held.take_over, Held.fail])
def test_every_call_of_an_attempt_that_is_over_is_refused_at_once(
    held: Held, end: Callable[[Held], None], tmp_path: Path
) -> None:
    api, uid, fence = held.consumer, held.task.uid, held.task.fence
    end(held)
    calls: dict[str, Callable[[], object]] = {
        "show": lambda: api.show(uid, fence),
        "begin": lambda: api.begin(uid, fence),
        "beat": held.beat,
        "watch": lambda: api.wait_for_cancel(uid, fence, 5),
        "input": lambda: api.fetch_input(uid, fence, tmp_path / "input"),
        "log": lambda: api.append_log(uid, fence, 0, b"x"),
        "line": lambda: api.show_log_line(uid, fence, b"x"),
        "upload": lambda: api.upload_output(uid, fence, [b"x"]),
        "commit": lambda: api.commit(uid, fence, COMMIT),
        "release": lambda: api.release(uid, fence, Release(consumer="ada", detail="away", blameless=True)),
    }
    refused: list[str] = []
    for name, call in calls.items():
        with pytest.raises(StaleFence, match=rf"fence {fence} no longer holds this task"):
            call()
        refused.append(name)
    assert refused == list(calls)


def test_a_cancel_reaches_the_holder_with_its_next_call(held: Held) -> None:
    cancel_task(held.database, held.task.uid, ANONYMOUS)
    assert held.beat()
    assert held.consumer.wait_for_cancel(held.task.uid, held.task.fence, 5)
    assert held.consumer.commit(held.task.uid, held.task.fence, COMMIT) == Settled(status=Status.CANCELLED)


def test_a_holder_whose_name_went_to_an_owner_is_told_so(private_api: RunningApi, held: Held) -> None:
    key = create_key(held.database, owner="host-a", scopes=[Scope.CONSUME], lifetime=None)
    with held.database.write() as session:
        session.get_one(ConsumerRow, "ada").seen_at -= LEASE + timedelta(seconds=1)
    with PrivateClient(private_api.url, key) as owner:
        owner.register(ConsumerRegistration(consumer="ada"))
    with pytest.raises(PermissionDenied, match="the consumer ada belongs to the owner host-a"):
        held.beat()


def test_nobody_else_speaks_for_a_holder_that_is_remembered(held: Held) -> None:
    known, uid, fence = Holders(), held.task.uid, held.task.fence
    assert known.find(uid, fence, owner=None) is None
    assert known.check(held.database, uid, fence, owner=None) == "ada"
    assert known.find(uid, fence, owner=None) == "ada"
    assert known.find(uid, fence, owner="another") is None
    assert known.find(uid, fence + 1, owner=None) is None
    with pytest.raises(PermissionDenied, match="proves itself with the service token"):
        known.check(held.database, uid, fence, owner="another")
    assert known.find(uid, fence, owner="another") is None
    assert known.check(held.database, uid, fence + 1, owner=None) is None
    assert known.find(uid, fence + 1, owner=None) is None
