"""Each side thread of a consumer meets an error nobody foresaw: it logs it, and goes on or ends what it guards."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.types import Receive, Scope, Send

from contract.broker.memory import InMemoryBroker
from contract.deployments import ReplicaAssignment
from contract.heartbeats import Progress
from contract.private_client import PrivateClient
from contract.schemas import Assignment, ConsumerRegistration
from contract.statuses import Phase
from job_consumer import heartbeat
from job_consumer.__main__ import wake_at_stop
from job_consumer.container_spec import Limits, Sandbox
from job_consumer.context import ConsumerContext
from job_consumer.engines import RunKey, RunKind
from job_consumer.engines.docker.log import read_frames
from job_consumer.engines.process.engine import ProcessEngine
from job_consumer.heartbeat import LeaseHeartbeat, ReplicaHeartbeat, TaskHeartbeat
from job_consumer.replicas.hosting_loop import HostingLoop
from job_consumer.replicas.ready import ReadyReplicas
from job_consumer.service import ConsumerOptions
from job_consumer.settings import Credential
from job_consumer.tasks import log_follower
from job_consumer.tasks.attempt import Attempt
from job_consumer.tasks.log_follower import LogFollower
from job_consumer.workspace import WorkDir
from kit.http_server import serve_in_thread
from standalone.server import consumer_in_thread
from tests.unit.consumer_peer import BEAT_REPLY, GARBAGE, MemoryEngine, Peer, consumer_peer
from tests.waiting import PATIENCE_S, wait_until

UID = "ab" * 32
KEY = RunKey(UID, 1)
REPLICA_KEY = RunKey(UID, 1, RunKind.REPLICA)
GPU = "GPU-00000000-0000-0000-0000-00000000000a"
LEASE_S = 0.6


def task(lease_s: float = LEASE_S) -> Assignment:
    return Assignment.model_validate(
        {
            "uid": UID,
            "fence": 1,
            "attempt": 1,
            "lease_s": lease_s,
            "human_readable_id": "echo",
            "model_version": 1,
            "container_tag": "echo:1",
            "use_gpu": False,
            "pull_policy": "never",
            "isolation": "strict",
            "time_limit_s": 60,
            "memory_limit_bytes": None,
            "max_unpacked_bytes": 1000,
            "max_output_bytes": 1000,
            "input": {"sha256": "0" * 64, "size_bytes": 1},
            "model_archive": None,
        }
    )


def replica(lease_s: float = 60) -> ReplicaAssignment:
    return ReplicaAssignment.model_validate(
        {
            "uid": UID,
            "fence": 1,
            "lease_s": lease_s,
            "human_readable_id": "echo",
            "model_version": 1,
            "container_tag": "echo:1",
            "use_gpu": True,
            "pull_policy": "never",
            "isolation": "strict",
            "memory_limit_bytes": None,
            "max_unpacked_bytes": 1000,
            "model_archive": None,
            "serving": {"port": 8001, "readiness": "tcp"},
            "environment": {},
        }
    )


@pytest.fixture
def make_context(tmp_path: Path) -> Iterator[Callable[..., ConsumerContext]]:
    clients: list[PrivateClient] = []

    def make(peer: Peer, engine: MemoryEngine | None = None) -> ConsumerContext:
        clients.append(PrivateClient(peer.url, "a-secret-of-the-tests"))
        return ConsumerContext(
            credential=Credential("SERVICE_TOKEN", "a-secret-of-the-tests"),
            sandbox=Sandbox("ada", Limits(1000, None, 3, 400, 5, 6), gpu_uuid=GPU, network="replicas"),
            api=clients[-1],
            engine=engine or MemoryEngine(),
            work=WorkDir(tmp_path / "work", "ada"),
            stopping=threading.Event(),
        )

    yield make
    for client in clients:
        client.close()


def tracebacks(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("kind", ["task", "replica"])
def test_a_heartbeat_that_cannot_be_made_for_a_lease_ends_the_attempt(
    make_context: Callable[..., ConsumerContext], caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    with consumer_peer(heartbeat=[GARBAGE]) as peer:
        context = make_context(peer)
        heartbeat: LeaseHeartbeat = (
            TaskHeartbeat(context, task(), Phase.RUNNING)
            if kind == "task"
            else ReplicaHeartbeat(context, replica(LEASE_S))
        )
        with heartbeat:
            wait_until(lambda: heartbeat.is_lost, "the attempt to be lost")
    assert tracebacks(caplog)


def test_a_heartbeat_goes_on_after_one_that_failed(
    make_context: Callable[..., ConsumerContext], caplog: pytest.LogCaptureFixture
) -> None:
    with (
        consumer_peer(heartbeat=[GARBAGE, BEAT_REPLY | {"cancel": True}]) as peer,
        TaskHeartbeat(make_context(peer), task(6.0), Phase.RUNNING) as heartbeat,
    ):
        peer.wait_for("heartbeat", 2)
        wait_until(lambda: heartbeat.is_cancelled, "the second beat's reply")
        assert not heartbeat.is_lost
    assert len(tracebacks(caplog)) == 1


def follow(context: ConsumerContext, told: list[Progress] | None = None) -> LogFollower:
    """A follower of a run that this release started."""
    workspace = context.work.open_workspace(KEY)
    on_progress = [].append if told is None else told.append
    return LogFollower(context.api, context.engine, KEY, workspace, on_progress)


def test_a_log_is_read_again_after_its_reader_failed(
    make_context: Callable[..., ConsumerContext], caplog: pytest.LogCaptureFixture
) -> None:
    engine = MemoryEngine(log=b"forty-two\n")
    engine.faults["follow_log"] = [ValueError("a frame of no kind")]
    with consumer_peer(log=[10]) as peer:
        follower = follow(make_context(peer, engine))
        follower.start()
        assert peer.wait_for("log", 1) == [b"forty-two\n"]
        follower.finish()
    assert len(tracebacks(caplog)) == 1


def test_a_log_is_posted_again_after_its_poster_failed(
    make_context: Callable[..., ConsumerContext], caplog: pytest.LogCaptureFixture
) -> None:
    with consumer_peer(log=[GARBAGE, 10]) as peer:
        follower = follow(make_context(peer, MemoryEngine(log=b"forty-two\n")))
        follower.start()
        assert peer.wait_for("log", 2) == [b"forty-two\n"] * 2
        follower.finish()
    assert len(tracebacks(caplog)) == 1


BAR = b"start\n\r 10%\r 20%\r100%\nprogress 0.42 fold 2\n"


def test_of_a_bar_the_last_frame_is_posted_and_progress_is_told(make_context: Callable[..., ConsumerContext]) -> None:
    told: list[Progress] = []
    with consumer_peer(log=[10]) as peer:
        follower = follow(make_context(peer, MemoryEngine(log=BAR)), told)
        follower.start()
        assert peer.wait_for("log", 1) == [b"start\n\r100%\nprogress 0.42 fold 2\n"]
        follower.finish()
    assert told == [Progress(fraction=0.42, text="fold 2")]


def test_the_log_of_a_run_of_the_release_before_keeps_its_frames(make_context: Callable[..., ConsumerContext]) -> None:
    with consumer_peer(log=[10]) as peer:
        context = make_context(peer, MemoryEngine(log=BAR))
        follower = follow(context)
        follower.abandon()
        context.work.workspace(KEY).progress_dir.rmdir()
        follower = LogFollower(context.api, context.engine, KEY, context.work.workspace(KEY), lambda _: None)
        follower.start()
        assert peer.wait_for("log", 1) == [BAR]
        follower.finish()


class Bar(MemoryEngine):
    """A run whose log is silent while it moves a bar, until `ended` is set."""

    def follow_log(self, key: RunKey, stop: threading.Event) -> Iterator[bytes]:
        self.ended.wait(PATIENCE_S)
        yield b"\r100%\n"

    def follow_output(self, key: RunKey, stop: threading.Event) -> Iterator[bytes]:
        yield from (b"\r 10%", b"\r 10%\r 42%")
        stop.wait(PATIENCE_S)


def test_a_moving_bar_is_shown_before_the_log_has_its_line(
    make_context: Callable[..., ConsumerContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_follower, "_LINE_S", 0.05)
    engine = Bar()
    with consumer_peer(log=[7], line=[None]) as peer:
        follower = follow(make_context(peer, engine))
        follower.start()
        wait_until(lambda: b" 42%" in peer.wait_for("line", 1), "the second frame")
        engine.ended.set()
        assert peer.wait_for("log", 1) == [b"\r100%\n"]
        follower.finish()
        assert len(peer.wait_for("line", 1)) <= 2


def test_progress_is_told_by_beats_of_its_own_but_not_by_one_every_moment(
    make_context: Callable[..., ConsumerContext],
) -> None:
    hour_s = 3600.0
    with (
        consumer_peer(heartbeat=[BEAT_REPLY]) as peer,
        TaskHeartbeat(make_context(peer), task(hour_s), Phase.RUNNING) as beats,
    ):
        beats.note_progress(Progress(fraction=0.1, text="one"))
        assert json.loads(peer.wait_for("heartbeat", 1)[0])["progress"] == {"fraction": 0.1, "text": "one"}
        for number in range(20, 100):
            beats.note_progress(Progress(fraction=number / 100))
            # A beat that was asked for is made before the next is.
            wait_until(lambda: not beats._wake.is_set(), "the beat")
        beats.enter(Phase.DELIVERING, at_once=True)
        told = [json.loads(beat)["progress"]["fraction"] for beat in peer.wait_for("heartbeat", 2)]
    assert told == [0.1, 0.99]


def test_the_container_of_a_replica_whose_thread_failed_is_removed(
    make_context: Callable[..., ConsumerContext], caplog: pytest.LogCaptureFixture
) -> None:
    with consumer_peer(claims=[replica().model_dump(mode="json"), None], heartbeat=[{"stop": True}]) as peer:
        engine = MemoryEngine(address=peer.url.removeprefix("http://"))
        # Once when its end is reported, and once while that is made good.
        engine.faults = {"stop": [ValueError("no such signal")], "remove": [ValueError("no such volume")]}
        context = make_context(peer, engine)
        registration = ConsumerRegistration(consumer="ada", gpu_uuid=GPU, accepts_cpu_tasks=True, replica_slots=1)
        hosting = HostingLoop(context, InMemoryBroker(), registration, ReadyReplicas(), engine)
        hosting.claim_all()
        engine.wait_removed(REPLICA_KEY)
        other = RunKey("cd" * 32, 1)
        context.gpu.enter(other, shares=False, check=lambda: None)
        hosting.claim_all()
        context.stopping.set()
        hosting.join()
    assert len(tracebacks(caplog)) == 2


def test_a_container_does_not_outlive_the_lease_of_a_heartbeat_that_fails(
    make_context: Callable[..., ConsumerContext],
) -> None:
    with consumer_peer(heartbeat=[GARBAGE], log=[0]) as peer:
        engine = MemoryEngine()
        context = make_context(peer, engine)
        context.work.open_workspace(KEY)
        # It never ends by itself.
        Attempt(context, task()).resume()
    assert engine.removed == [KEY]


def test_a_container_is_removed_where_giving_its_task_back_fails_too(
    make_context: Callable[..., ConsumerContext],
) -> None:
    with consumer_peer(heartbeat=[BEAT_REPLY], log=[0], release=[GARBAGE]) as peer:
        engine = MemoryEngine()
        engine.faults["wait"] = [ValueError("no such state")]
        context = make_context(peer, engine)
        context.work.open_workspace(KEY)
        with pytest.raises(ValueError, match="Expecting value"):
            Attempt(context, task(60)).resume()
    assert engine.removed == [KEY]


def test_a_consumer_in_a_thread_is_started_again_after_it_failed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    work_dir = tmp_path / "work"
    work_dir.write_text("a file where the folder should be")
    with consumer_peer(claims=[None]) as peer, InMemoryBroker() as broker:
        options = ConsumerOptions(
            api_url=peer.url,
            credential=Credential("SERVICE_TOKEN", "a-secret-of-the-tests"),
            consumer="ada",
            work_dir=work_dir,
            limits=Limits(1000, None, 3, 400, 5, 6),
        )
        with consumer_in_thread(options, broker, ProcessEngine(work_dir=work_dir)):
            wait_until(lambda: tracebacks(caplog), "the consumer to fail")
            work_dir.unlink()
            assert peer.wait_for("consumers", 1)


def test_a_server_in_a_thread_that_ends_itself_is_heard(caplog: pytest.LogCaptureFixture) -> None:
    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise ValueError("no database")

    with pytest.raises(OSError, match="did not start"), serve_in_thread(app, "127.0.0.1", 0):
        pass
    assert tracebacks(caplog)
    assert "start the server again" in caplog.text


def test_a_consumer_that_should_stop_is_woken_after_a_wake_that_failed(caplog: pytest.LogCaptureFixture) -> None:
    class Stubborn(InMemoryBroker):
        faults = 1

        def wake(self) -> None:
            if self.faults:
                self.faults = 0
                raise ValueError("not now")
            super().wake()

    stopping, broker = threading.Event(), Stubborn()
    stopping.set()
    wake_at_stop(stopping, broker).start()
    assert broker.receive(["tasks.cpu"], PATIENCE_S) is None
    assert len(tracebacks(caplog)) == 1


def test_a_silent_log_is_left_after_a_shutdown_that_failed(caplog: pytest.LogCaptureFixture) -> None:
    class Raw:
        faults = 1

        def __init__(self) -> None:
            self.is_shut = threading.Event()

        def read(self, _size: int) -> bytes:
            self.is_shut.wait(PATIENCE_S)
            return b""

        def shutdown(self) -> None:
            if self.faults:
                self.faults = 0
                raise KeyError("no socket")
            self.is_shut.set()

    class Silent:
        def __init__(self) -> None:
            self.raw = Raw()

        def close(self) -> None:
            pass

    stop, response = threading.Event(), Silent()
    stop.set()
    assert list(read_frames(response, stop)) == []  # type: ignore[arg-type]
    assert response.raw.is_shut.is_set()
    assert len(tracebacks(caplog)) == 1


def test_a_beat_says_what_the_consumer_does(make_context: Callable[..., ConsumerContext]) -> None:
    with consumer_peer(heartbeat=[BEAT_REPLY]) as peer, TaskHeartbeat(make_context(peer), task(), Phase.PREPARING):
        (beat, *_) = peer.wait_for("heartbeat", 1)
    assert json.loads(beat)["phase"] == "preparing"


def test_a_pull_is_told_by_beats_of_its_own_but_not_by_one_every_moment(
    make_context: Callable[..., ConsumerContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    hour_s = 3600.0
    with (
        consumer_peer(heartbeat=[BEAT_REPLY]) as peer,
        TaskHeartbeat(make_context(peer), task(hour_s), Phase.PREPARING) as beats,
    ):
        monkeypatch.setattr(heartbeat, "PULL_BEAT_S", 0.0)
        beats.note_pull(41)
        assert json.loads(peer.wait_for("heartbeat", 1)[0])["pull_percent"] == 41
        monkeypatch.setattr(heartbeat, "PULL_BEAT_S", hour_s)
        for percent in range(42, 100):
            beats.note_pull(percent)
        beats.note_pull(None)
        beats.enter(Phase.RUNNING, at_once=True)
        told = [json.loads(beat)["pull_percent"] for beat in peer.wait_for("heartbeat", 2)]
    assert told == [41, None]
