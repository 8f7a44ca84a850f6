"""Streams of events: nothing left out, nobody told too much, and all of them end."""

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from contract.access import ANONYMOUS, Caller, Scope
from contract.claims import ClaimRequest
from contract.errors import TooManyStreams
from inference_client import InferenceClient, ModelRegistration
from inference_client import errors as client_errors
from inference_client.event_schemas import ServerEvent, TaskEvent
from inference_client.overview_schemas import ConsumerView
from private_api.archives import ArchiveStore
from private_api.database import Database
from private_api.feed import changes, feed
from private_api.feed.changes import newest_id, read_changes
from private_api.feed.feed import Feed
from private_api.keys import create_key, revoke_key
from private_api.routes import events as routes
from private_api.settling import Settling
from private_api.task_logs import TaskLogs
from tests.integration.infer_harness import User, serve
from tests.integration.public_door import PLAIN, RunningDoor, finish, serve_door
from tests.integration.task_harness import Harness
from tests.running_api import RunningApi, run_private_api
from tests.tcp_proxy import Mode, TcpProxy
from tests.waiting import PATIENCE_S, wait_until

ADA = Caller("ada", frozenset({Scope.SUBMIT}))


# The order of changes


@contextmanager
def open_cancellation(database: Database, uid: str) -> Iterator[Session]:
    """A transaction that has ended a task and is not committed yet; leaving the block rolls back what is left."""
    with Session(database.engine) as session:
        ends = "UPDATE tasks SET status = 'cancelled', reason = 'cancelled', ended_at = now() WHERE uid = :uid"
        session.execute(text(ends), {"uid": uid})
        yield session
        session.rollback()


def read_ids(database: Database, settled: int | None) -> list[int]:
    assert settled is not None
    with database.read() as session:
        return [change.id for change in read_changes(session, after=0, until=settled)]


@pytest.fixture
def on_postgres(postgres_url: str, store: ArchiveStore, logs: TaskLogs) -> Iterator[Harness]:
    """SQLite has one writer at a time: there ids are committed in their order."""
    database = Database(postgres_url)
    harness = Harness(database, store, logs)
    harness.register()
    yield harness
    database.close()


def test_a_change_that_is_committed_late_is_not_passed_by(on_postgres: Harness) -> None:
    database, settling = on_postgres.database, Settling("events", newest_id)
    first = on_postgres.submit()
    before = settling.look(database)
    assert before == newest_id(database)
    with open_cancellation(database, first) as late:
        on_postgres.submit()
        assert newest_id(database) == before + 2
        # Two looks, and more: it is not time that settles a change.
        assert [settling.look(database) for _ in range(3)] == [before] * 3
        on_postgres.submit()
        late.commit()
    on_postgres.submit()
    settled = before
    wait_until(lambda: settling.look(database) == newest_id(database), "all is settled")
    settled = settling.look(database) or 0
    assert read_ids(database, settled) == list(range(1, settled + 1))


def test_a_change_that_is_rolled_back_holds_nobody_up(on_postgres: Harness) -> None:
    database, settling = on_postgres.database, Settling("events", newest_id)
    first = on_postgres.submit()
    with open_cancellation(database, first):
        on_postgres.submit()
        # Whoever begins now begins nowhere: an older change may still appear.
        assert settling.look(database) is None
    assert settling.look(database) is not None
    wait_until(lambda: settling.look(database) == newest_id(database), "all is settled")
    # It left a gap.
    assert read_ids(database, settling.look(database)) == [1, 3]


def test_writers_of_other_tables_and_readers_hold_nobody_up(on_postgres: Harness) -> None:
    database = on_postgres.database
    on_postgres.submit()
    with Session(database.engine) as session:
        session.execute(text("UPDATE consumers SET seen_at = now()"))
        session.execute(text("SELECT * FROM events"))
        assert Settling("events", newest_id).look(database) == newest_id(database)


# The feed


def test_a_reader_that_is_far_behind_reads_from_the_database_and_memory_stays_small(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "_KEPT", 4)
    for module in (feed, changes):
        monkeypatch.setattr(module, "WINDOW", 2)
    looks: list[int] = []
    source = Feed(harness.database, on_look=lambda: looks.append(1))
    with source.seat(ADA):
        wait_until(lambda: (source.step(), source.moment)[1], "a first look")
        for _ in range(3):
            harness.submit()
        wait_until(lambda: (source.step(), source.moment and source.moment.settled)[1] == 3)
        for _ in range(9):
            harness.submit()
        wait_until(lambda: (source.step(), source.moment and source.moment.settled)[1] == 12)
        moment = source.moment
        assert moment is not None
        assert [change.id for change in moment.kept] == [9, 10, 11, 12]
        found, after = [], 0
        while after < moment.settled:
            page, after = moment.page(after) or source.read_stored(after, moment.settled)
            found += [change.id for change in page]
            assert len(page) <= 2
        assert found == list(range(1, 13))
    source.step()
    assert source.moment is None


def test_seats_are_limited_for_each_owner_and_in_all(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "MAX_STREAMS_PER_OWNER", 2)
    monkeypatch.setattr(feed, "MAX_STREAMS_WITHOUT_KEY", 1)
    monkeypatch.setattr(feed, "MAX_STREAMS", 4)
    source = Feed(database, on_look=lambda: None)
    with contextlib.ExitStack() as stack:
        for caller in (ADA, ADA, ANONYMOUS):
            stack.enter_context(source.seat(caller))
        for caller, word in ((ADA, "owner"), (ANONYMOUS, "without a key")):
            with pytest.raises(TooManyStreams, match=word), source.seat(caller):
                pass
        stack.enter_context(source.seat(Caller("bob", frozenset())))
        with pytest.raises(TooManyStreams, match="4 streams"), source.seat(Caller("eve", frozenset())):
            pass
    with source.seat(ADA), source.seat(ADA):
        pass


# Streams


class Listener:
    """A client that collects what it is told, in a thread of its own."""

    def __init__(self, url: str, key: str | None = None, **options: object) -> None:
        self.client = InferenceClient(url, key=key)
        self.told: list[ServerEvent] = []
        self.error: Exception | None = None
        self.has_left = False
        self._options = options
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        try:
            for event in self.client.watch(**self._options):  # type: ignore[arg-type]
                self.told.append(event)
                if self.has_left:
                    return
        except Exception as error:
            self.error = error

    @property
    def changes(self) -> list[tuple[str, str]]:
        return [(e.data.uid, str(e.data.new_status)) for e in self.told if isinstance(e.data, TaskEvent)]

    def of(self, type_: str) -> list[ServerEvent]:
        return [event for event in self.told if event.type == type_]

    def hears(self, uid: str, status: str = "queued") -> None:
        wait_until(lambda: (uid, status) in self.changes, lambda: f"{status} in {self.told} {self.error!r}")

    def is_connected(self) -> None:
        wait_until(lambda: self.of("queue"), lambda: f"how the queue stands: {self.error!r}")


def standing(listener: Listener, name: str) -> list[str | None]:
    """The uids of the tasks that a busy consumer is said to run, None for one that is not told."""
    told = [event.data for event in listener.of("consumer")]
    busy = [view for view in told if isinstance(view, ConsumerView) and (view.name, view.status) == (name, "busy")]
    return [view.task.uid if view.task else None for view in busy]


def make_key(api: RunningApi, owner: str, *scopes: Scope) -> str:
    database = Database(api.database_url)
    try:
        return create_key(database, owner=owner, scopes=scopes or (Scope.SUBMIT,), lifetime=None)
    finally:
        database.close()


def submit(url: str, folder: Path, key: str | None = None) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "scan").write_text("pixels")
    with InferenceClient(url, key=key) as client:
        with contextlib.suppress(client_errors.ModelExists):
            client.add_model(ModelRegistration(human_readable_id="echo", container_tag="echo:1"))
        return client.submit("echo", folder)


@pytest.fixture
def door(private_api: RunningApi) -> Iterator[str]:
    with serve_door(private_api.url) as url:
        yield url


def test_everybody_is_told_what_they_may_see(private_api: RunningApi, door: str, tmp_path: Path) -> None:
    keys = {name: make_key(private_api, name) for name in ("ada", "bob")}
    keys["carol"] = make_key(private_api, "carol", Scope.OPERATE)
    open_uid = submit(door, tmp_path / "in")
    listeners = {name: Listener(door, key) for name, key in keys.items()}
    listeners["anonymous"] = Listener(door)
    listeners["knows a uid"] = Listener(door, uids=[open_uid])
    for listener in listeners.values():
        listener.is_connected()
    of_ada = submit(door, tmp_path / "in", keys["ada"])
    finish(RunningDoor(door, private_api.data_dir, private_api.url), of_ada)
    finish(RunningDoor(door, private_api.data_dir, private_api.url), open_uid)
    last = submit(door, tmp_path / "in", keys["bob"])

    listeners["carol"].hears(last)
    listeners["bob"].hears(last)
    ran = ["leased", "running", "finished"]
    of_all = [(of_ada, status) for status in ("queued", *ran)] + [(open_uid, status) for status in ran]
    assert listeners["carol"].changes == [*of_all, (last, "queued")]
    listeners["ada"].hears(of_ada, "finished")
    listeners["knows a uid"].hears(open_uid, "finished")
    assert listeners["ada"].changes == of_all[:4]
    assert listeners["bob"].changes == [(last, "queued")]
    assert listeners["knows a uid"].changes == of_all[4:]
    # Consumers are for holders of keys, their tasks for the tasks' owners.
    held = submit(door, tmp_path / "in", keys["ada"])
    with private_api.consumer() as consumer:
        assert consumer.claim(ClaimRequest(consumer="holder", uid=held)) is not None
    for name, sees in (("ada", held), ("carol", held), ("bob", None)):
        wait_until(lambda name=name: standing(listeners[name], "holder"), "the consumer is busy")  # type: ignore[misc]
        assert set(standing(listeners[name], "holder")) == {sees}
    assert listeners["anonymous"].changes == []
    assert listeners["anonymous"].of("consumer") == []
    wait_until(lambda: any(lane.queued for e in listeners["anonymous"].of("queue") for lane in e.data.lanes), "counts")  # type: ignore[union-attr]
    for listener in listeners.values():
        listener.has_left = True


def test_who_comes_back_misses_nothing_and_hears_nothing_twice(
    private_api: RunningApi, door: str, tmp_path: Path
) -> None:
    key = make_key(private_api, "ada")
    uids = [submit(door, tmp_path / "in", key) for _ in range(3)]
    with InferenceClient(door, key=key) as client:
        first = list(islice(client.watch(types=["task"], after=0), 2))
        uids += [submit(door, tmp_path / "in", key) for _ in range(3)]
        rest = list(islice(client.watch(types=["task"], after=first[-1].last_id), 4))
    assert [event.data.uid for event in first + rest] == uids  # type: ignore[union-attr]
    ids = [event.last_id for event in first + rest]
    assert ids == sorted(set(ids))


def test_a_place_of_another_database_is_now(private_api: RunningApi, door: str, tmp_path: Path) -> None:
    key = make_key(private_api, "ada")
    submit(door, tmp_path / "in", key)
    listener = Listener(door, key, after=10**6)
    listener.is_connected()
    new = submit(door, tmp_path / "in", key)
    listener.hears(new)
    assert listener.changes == [(new, "queued")]
    listener.has_left = True


def test_processes_that_share_a_database_tell_the_same(postgres_url: str, tmp_path: Path) -> None:
    with (
        run_private_api(postgres_url, tmp_path / "data") as one,
        run_private_api(postgres_url, tmp_path / "data") as other,
        serve_door(one.url) as here,
        serve_door(other.url) as there,
    ):
        key = make_key(one, "ada")
        listeners = [Listener(here, key, types=["task", "queue"]), Listener(there, key, types=["task", "queue"])]
        for listener in listeners:
            listener.is_connected()
        uids = [submit(url, tmp_path / "in", key) for url in (here, there, here, there)]
        for listener in listeners:
            listener.hears(uids[-1])
            assert listener.changes == [(uid, "queued") for uid in uids]
            listener.has_left = True


def test_deployments_are_told_until_they_are_gone(private_api: RunningApi, door: str, tmp_path: Path) -> None:
    submit(door, tmp_path / "in")
    listener = Listener(door, types=["deployment", "queue"])
    listener.is_connected()
    with InferenceClient(door) as client, httpx.Client(base_url=door, **PLAIN) as http:
        http.post("/api/models/echo/deployment", json={"port": 8001}).raise_for_status()
        wait_until(lambda: listener.of("deployment"), "the deployment")
        assert listener.of("deployment")[-1].data.deployment.status == "idle"  # type: ignore[union-attr]
        client.undeploy("echo")
    wait_until(lambda: listener.of("deployment")[-1].data.deployment is None, "the end")  # type: ignore[union-attr]
    listener.has_left = True


# How streams end


def stream(url: str, key: str | None = None, **headers: str) -> contextlib.AbstractContextManager[httpx.Response]:
    given = {"X-API-Key": key} if key else {}
    return httpx.stream("GET", f"{url}/api/events", headers={**given, **headers}, **PLAIN)


def test_a_stream_says_how_it_is_to_be_treated_and_that_it_lives(
    private_api: RunningApi, door: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "KEEP_ALIVE_S", 0.05)
    with stream(door) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-accel-buffering"] == "no"
        received = ""
        for piece in answer.iter_text():
            received += piece
            if ": keep-alive\nid: 0\n\n" in received:
                break
        assert received.startswith("retry: ")


def test_a_client_that_goes_gives_its_seat_back(
    private_api: RunningApi, door: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "MAX_STREAMS_WITHOUT_KEY", 1)
    with stream(door) as first:
        assert first.status_code == 200
        with stream(door) as second:
            second.read()
            assert (second.status_code, second.json()["error"]) == (429, "TooManyStreams")
            assert second.headers["retry-after"]

    def is_taken() -> bool:
        with stream(door) as again:
            return again.status_code == 200

    wait_until(is_taken, "the seat is free again")


def test_a_stream_ends_with_its_key(private_api: RunningApi, door: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "KEEP_ALIVE_S", 0.05)
    key = make_key(private_api, "ada")
    with stream(door, key) as answer:
        pieces = answer.iter_text()
        next(pieces)
        database = Database(private_api.database_url)
        revoke_key(database, key.split("_")[1])
        database.close()
        # It ends as a whole answer does.
        for _ in pieces:
            pass
    assert stream_status(door, key) == 401


def stream_status(url: str, key: str | None = None, **headers: str) -> int:
    with stream(url, key, **headers) as answer:
        return answer.status_code


def test_what_is_no_place_is_refused(private_api: RunningApi, door: str) -> None:
    assert [stream_status(door, None, **{"Last-Event-ID": word}) for word in ("x", "-1", "1e3", str(2**63))] == [
        422
    ] * 4
    with serve_door(private_api.url, require_key=True) as closed:
        assert stream_status(closed) == 401


@pytest.mark.parametrize("stops", ["private", "public"])
def test_a_server_that_stops_ends_its_streams_properly(sqlite_url: str, tmp_path: Path, stops: str) -> None:
    """Not cut: the last chunk of the answer comes."""
    with contextlib.ExitStack() as door, contextlib.ExitStack() as api:
        private = api.enter_context(run_private_api(sqlite_url, tmp_path / "data"))
        url = door.enter_context(serve_door(private.url))
        with stream(url) as answer:
            pieces = answer.iter_text()
            next(pieces)
            stopping = threading.Thread(target=(api if stops == "private" else door).close)
            stopping.start()
            for _ in pieces:
                pass
            stopping.join(PATIENCE_S)


def test_a_client_takes_up_a_stream_that_was_cut_where_it_was(
    private_api: RunningApi, door: str, tmp_path: Path
) -> None:
    key = make_key(private_api, "ada")
    with TcpProxy(door, 80) as proxy:
        uids = [submit(door, tmp_path / "in", key)]
        listener = Listener(proxy.url, key, types=["task"], after=0)
        listener.hears(uids[0])
        proxy.set_mode(Mode.REFUSE)
        uids += [submit(door, tmp_path / "in", key) for _ in range(2)]
        proxy.set_mode(Mode.PASS)
        uids.append(submit(door, tmp_path / "in", key))
        listener.hears(uids[-1])
        assert listener.changes == [(uid, "queued") for uid in uids]
        listener.has_left = True


# The command


def _first_lines(user: User, count: int, *arguments: str) -> list[str]:
    """What a command that does not end prints first."""
    command = [sys.executable, "-m", "inference_client", *arguments]
    with subprocess.Popen(command, env=user.environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = list(islice(process.stdout, count))
        process.terminate()
    return lines


def test_infer_watch_prints_a_line_for_each_event(tmp_path: Path) -> None:
    with serve(tmp_path) as server:
        user = User(tmp_path / "home", INFERENCE_SERVER_URL=server.url, INFERENCE_SERVER_KEY=server.key)
        uid = user.submits("echo")
        shown = _first_lines(user, 1, "watch", uid[:12], "--after", "0")
        assert uid in shown[0]
        assert "queued" in shown[0]
        told = _first_lines(user, 2, "watch", "--json", "--type", "queue", "--type", "task", "--after", "0")
        assert {line.split('"type": "')[1].split('"')[0] for line in told} == {"queue", "task"}
        refused = user.pipes("watch", "--type", "weather")
        assert (refused.returncode, "type" in refused.stderr) == (4, True)
