"""What a consumer does while the Docker Engine refuses connections: it claims nothing, and soon starts anew."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from job_consumer.engine_watch import Complaint, EngineGone
from job_consumer.engines.docker.engine import DockerEngine
from job_consumer.service import ConsumerOptions, run_consumer
from job_consumer.settings import Credential
from tests.e2e.client import DoorClient
from tests.e2e.images import script_image
from tests.engine_client import SOCKET
from tests.limits import CONTAINER_LIMITS
from tests.running_api import RunningApi
from tests.services import require_docker
from tests.tcp_proxy import Mode, TcpProxy
from tests.waiting import wait_until

MIB = 1024**2
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.usefixtures("collected_sockets"),
]


@pytest.fixture
def proxy() -> Iterator[TcpProxy]:
    """Stands before the Engine."""
    require_docker()
    with TcpProxy(f"unix://{SOCKET}", 0) as made:
        yield made


@contextmanager
def consumer(
    api: RunningApi, proxy: TcpProxy, folder: Path, patience_s: float | None
) -> Iterator[Callable[[], list[str]]]:
    """A consumer in a thread; says how it ended, once it has. It is stopped when the block ends."""
    stopping, ends = threading.Event(), list[str]()
    engine = DockerEngine(work_dir=folder / "work", work_volume=None, base_url=f"tcp://127.0.0.1:{proxy.port}")
    options = ConsumerOptions(
        api_url=api.url,
        credential=Credential("SERVICE_TOKEN", api.token),
        consumer="a-1",
        work_dir=folder / "work",
        limits=CONTAINER_LIMITS,
        alive_file=folder / "alive",
        engine_patience_s=patience_s,
    )

    def run() -> None:
        try:
            run_consumer(options, api.broker, engine, stopping)
        except EngineGone:
            ends.append("gone")
        else:
            ends.append("stopped")

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield lambda: ends
    finally:
        stopping.set()
        api.broker.wake()
        thread.join(60)
        engine.close()
    assert not thread.is_alive()


def test_a_consumer_ends_when_its_engine_is_gone_and_its_next_start_adopts_what_runs(
    api: RunningApi, proxy: TcpProxy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with api.client() as http:
        door = DoorClient(api.url, http, verify=False)
        model = door.add_model(script_image("until [ -e /output/go ]; do sleep 0.1; done"))
        with consumer(api, proxy, tmp_path, patience_s=2) as ended:
            uid = door.submit(model, {"i": b""})
            door.wait_status(uid, "running")
            assert (tmp_path / "alive").exists()
            proxy.set_mode(Mode.REFUSE)
            wait_until(ended, "the consumer to end")
            assert ended() == ["gone"]
            assert not (tmp_path / "alive").exists()
        (line,) = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
        assert "refused connections for 2 s: this consumer ends" in line
        proxy.set_mode(Mode.PASS)
        with consumer(api, proxy, tmp_path, patience_s=60) as ended:
            wait_until((tmp_path / "alive").exists, "the next start")
            (output,) = tmp_path.glob("work/attempts/a-1/*/output")
            (output / "go").touch()
            assert door.result(uid) == {"go": b""}
            assert door.status(uid)["attempt"] == 1
        assert ended() == ["stopped"]


def test_a_consumer_without_an_engine_claims_nothing(
    api: RunningApi, proxy: TcpProxy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with api.client() as http, consumer(api, proxy, tmp_path, patience_s=None) as ended:
        door = DoorClient(api.url, http, verify=False)
        model = door.add_model(script_image("echo 1 > /output/result"))
        assert door.result(door.submit(model, {"i": b""})) == {"result": b"1\n"}
        proxy.set_mode(Mode.REFUSE)
        uid = door.submit(model, {"i": b""})
        wait_until(lambda: "is sick, takes nothing" in caplog.text, "the consumer to notice")
        assert (door.status(uid)["status"], door.status(uid)["attempt"]) == ("queued", 0)
        proxy.set_mode(Mode.PASS)
        assert door.result(uid) == {"result": b"1\n"}
        assert door.status(uid)["attempt"] == 1
        assert ended() == []


def test_a_fault_that_lasts_is_logged_after_longer_and_longer_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("job_consumer.engine_watch.time.monotonic", lambda: now)
    complaint, logged = Complaint(), []
    for second in range(400):
        now = 1000.0 + second
        if complaint.is_due():
            logged.append(second)
    assert logged == [0, 1, 3, 7, 15, 31, 63, 123, 183, 243, 303, 363]
    complaint.is_over()
    assert complaint.is_due()
