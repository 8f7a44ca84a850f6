"""A Docker Engine that is restarted, killed or loses power while tasks run: each finishes once, with its whole output.

A few of the cases always; `make engine-matrix` runs them all.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import select

from job_consumer.engines.docker.engine import DockerEngine
from job_consumer.service import ConsumerOptions, run_consumer
from job_consumer.settings import Credential
from private_api.database import Database
from private_api.tables import TaskRow
from tests.e2e.client import DoorClient
from tests.e2e.images import script_image
from tests.e2e.mortal_engine import Death, MortalEngine, mortal_engine
from tests.limits import CONTAINER_LIMITS
from tests.running_api import RunningApi
from tests.services import require_docker
from tests.waiting import START_S, wait_until

pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.usefixtures("collected_sockets"),
]
MIB = 1024**2
# Half of the output at once, the other half once the test lets it go on.
RUN = """
echo 1 > /output/first
case $(cat /input/on_term) in ignore) trap '' TERM;; end) trap 'exit 0' TERM;; die) trap - TERM;; esac
while [ ! -e /output/go ]; do sleep 0.1; done
echo 2 > /output/second
"""
ON_TERM = ("ignore", "end", "die")
WHOLE = {"first": b"1\n", "second": b"2\n", "go": b""}


@dataclass(frozen=True)
class Case:
    """What happens to an Engine while three tasks run on it, one of each kind."""

    version: str
    """`26` for that one, else the older one."""
    death: Death
    live_restore: bool
    consumers_stay: bool
    """Else they are away while it happens, and adopt what is there afterwards."""

    def __str__(self) -> str:
        restore = "live-restore" if self.live_restore else "no live-restore"
        return (
            f"{self.version or '20'}, {self.death}, {restore}, consumers {'stay' if self.consumers_stay else 'return'}"
        )


# What runs has gone with the power, whatever live-restore says; consumers have, too.
MATRIX = [
    Case(version, death, live_restore, stay)
    for version in ("", "26")
    for live_restore in (False, True)
    for death in Death
    for stay in (True, False)
    if not (stay and death is Death.POWER_CUT)
]
ALWAYS = [Case("", Death.RESTART, False, True), Case("", Death.POWER_CUT, True, False)]
CASES = MATRIX if os.environ.get("TEST_ENGINE_MATRIX") else ALWAYS


@dataclass
class Engines:
    """One at a time, kept as long as cases ask for its version."""

    stack: ExitStack
    made: tuple[str, MortalEngine] | None = None

    def of(self, version: str) -> MortalEngine:
        """The Engine of this version, with the image that tasks run."""
        if self.made is None or self.made[0] != version:
            self.stack.close()
            engine = self.stack.enter_context(mortal_engine(version))
            engine.host.load(script_image(RUN))
            self.made = version, engine
        return self.made[1]


@pytest.fixture(scope="module")
def engines() -> Iterator[Engines]:
    require_docker()
    with ExitStack() as stack:
        yield Engines(stack)


@contextmanager
def consumers(api: RunningApi, engine: MortalEngine, work_dir: Path) -> Iterator[None]:
    """One for each task. When the block ends they leave what runs, as consumers do."""
    stopping = threading.Event()
    with ExitStack() as stack:
        threads = []
        for name in ON_TERM:
            docker_engine = DockerEngine(work_dir=work_dir, work_volume=None, base_url=engine.host.engine)
            stack.callback(docker_engine.close)
            credential = Credential("SERVICE_TOKEN", api.token)
            options = ConsumerOptions(
                api_url=api.url, credential=credential, consumer=name, work_dir=work_dir, limits=CONTAINER_LIMITS
            )
            threads.append(threading.Thread(target=run_consumer, args=(options, api.broker, docker_engine, stopping)))
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stopping.set()
            while any(thread.is_alive() for thread in threads):
                api.broker.wake()
                threads[-1].join(0.2)
                threads = [thread for thread in threads if thread.is_alive()] or threads[-1:]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_tasks_finish_once_with_all_their_output_whatever_becomes_of_the_engine(
    engines: Engines, case: Case, api: RunningApi, tmp_path: Path
) -> None:
    engine = engines.of(case.version)
    if engine.live_restore != case.live_restore:
        engine.live_restore = case.live_restore
        engine.die(Death.RESTART)
        engine.start()
    attempt = 1 if case.live_restore and case.death is not Death.POWER_CUT else 2
    work_dir = tmp_path / "work"
    with api.client() as http, ExitStack() as stack:
        door = DoorClient(api.url, http, verify=False)
        stack.enter_context(consumers(api, engine, work_dir))
        model = door.add_model(script_image(RUN))
        uids = [door.submit(model, {"on_term": how.encode()}) for how in ON_TERM]
        for uid in uids:
            wait_until(lambda uid=uid: half_of(work_dir, uid), lambda uid=uid: str(door.status(uid)))
            # A start that the Engine has not answered yet is given back.
            door.wait_status(uid, "running")
        if not case.consumers_stay:
            stack.close()
        engine.die(case.death)
        engine.start()
        if not case.consumers_stay:
            stack.enter_context(consumers(api, engine, work_dir))
        for uid in uids:
            wait_until(
                lambda uid=uid: runs_again(door, uid, attempt) and half_of(work_dir, uid),
                lambda uid=uid: str(door.status(uid)),
                within_s=START_S,
            )
            (folder,) = half_of(work_dir, uid)
            (folder / "go").touch()
        for uid in uids:
            assert door.result(uid) == WHOLE
            assert door.status(uid)["attempt"] == attempt
        assert blamed(api) == [(0, 0)] * len(uids)
        filters = [f"--filter=label=inference-server.task={uid}" for uid in uids]
        wait_until(
            lambda: not any(engine.host.docker("ps", "-aq", each) for each in filters), "no container to be left"
        )
        if case.version or not case.live_restore:
            # After a restart with live-restore, 20.10 takes the volumes of what it kept for mounted until its next one.
            wait_until(lambda: not any(engine.host.of_task(uid) for uid in uids), "no volume to be left")


def half_of(work_dir: Path, uid: str) -> list[Path]:
    """The output folder of the attempt at a task that has written its first half, if there is one."""
    return [path.parent for path in work_dir.glob(f"attempts/*/{uid}-*/output/first")]


def runs_again(door: DoorClient, uid: str, attempt: int) -> bool:
    """Whether this attempt of a task runs; it must not have ended."""
    status = door.status(uid)
    assert status["status"] not in ("finished", "failed", "cancelled"), status
    return bool(status["status"] == "running" and status["attempt"] == attempt)


def blamed(api: RunningApi) -> list[tuple[int, int]]:
    """The crashes and the infrastructure failures that were counted against each task."""
    database = Database(api.database_url)
    try:
        with database.read() as session:
            rows = session.execute(select(TaskRow.crashes, TaskRow.infrastructure_failures))
            return [(crashes, failures) for crashes, failures in rows]
    finally:
        database.close()
