"""A sick consumer takes nothing, says why where operators look, is not healthy, and takes work again by itself."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from contract.statuses import ConsumerStatus
from job_consumer import worker
from job_consumer.health import WorkDisk
from kit.healthcheck import main as check_health
from tests.integration.lab import MIB, Lab, open_lab
from tests.services import missing
from tests.waiting import START_S, wait_until


@pytest.fixture
def lab(sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setattr(worker, "POLL_S", 0.5)
    with open_lab(sqlite_url, tmp_path) as opened:
        yield opened


@pytest.fixture
def is_healthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], bool]:
    """What the container's health check says of a consumer."""

    def ask(name: str) -> bool:
        monkeypatch.setattr("sys.argv", ["healthcheck", f"file:{tmp_path / name}.alive"])
        return check_health() == 0

    return ask


@contextmanager
def small_disk(folder: Path, options: str = "mode=755") -> Iterator[None]:
    """A disk of 8 MiB at the folder."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size=8m,{options}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        missing(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize(
    ("options", "trouble"), [("ro", "is read-only"), ("nr_inodes=500", "has room for only 499 more files")]
)
def test_a_disk_that_takes_no_files_takes_no_task(tmp_path: Path, options: str, trouble: str) -> None:
    with small_disk(tmp_path / "work", options):
        assert trouble in (WorkDisk(tmp_path / "work", 0).check() or "")


def test_a_full_consumer_leaves_a_queue_to_a_sound_one(lab: Lab, is_healthy: Callable[[str], bool]) -> None:
    with small_disk(lab.folder / "full"):
        filling = lab.folder / "full" / "someone-elses"
        filling.write_bytes(bytes(7 * MIB))
        with lab.consumer("full", min_free_bytes=4 * MIB):
            wait_until(lambda: lab.stands("full", ConsumerStatus.SICK), "it to find its disk full")
            why = lab.view("full").detail or ""
            assert "full has 1 MiB free, less than the 4 MiB of MIN_FREE_BYTES" in why
            wait_until(lambda: not is_healthy("full"), "its health check to fail")
            uids = lab.submit(30)
            with lab.consumer("sound"):
                wait_until(lambda: lab.count_finished() == len(uids), within_s=START_S)
                assert {name for uid in uids for name in lab.consumers_of(uid)} == {"sound"}
            # It takes work again by itself once there is room.
            filling.unlink()
            (last,) = lab.submit(1)
            wait_until(lambda: lab.status(last) == "finished", lambda: f"{lab.status(last)}, {lab.view('full')}")
            wait_until(lambda: is_healthy("full"), "its health check to pass")
            assert lab.consumers_of(last) == ["full"]


def test_a_consumer_that_is_well_again_does_not_wait_for_its_next_poll(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "POLL_S", 3600.0)
    with small_disk(lab.folder / "full"):
        filling = lab.folder / "full" / "someone-elses"
        filling.write_bytes(bytes(7 * MIB))
        with lab.consumer("full", min_free_bytes=4 * MIB):
            wait_until(lambda: lab.stands("full", ConsumerStatus.SICK), "it to find its disk full")
            (uid,) = lab.submit(1)
            filling.unlink()
            wait_until(lambda: lab.status(uid) == "finished", lambda: f"{lab.status(uid)}, {lab.view('full')}")


def test_a_consumer_where_task_after_task_fails_pauses_and_tries_again(
    lab: Lab, is_healthy: Callable[[str], bool], caplog: pytest.LogCaptureFixture
) -> None:
    with lab.consumer("broken") as work:
        wait_until(lambda: lab.stands("broken", ConsumerStatus.FREE), "it to wait for work")
        # As a clean-up of the host does that knows no better.
        attempts = work / "attempts" / "broken"
        attempts.rename(work / "moved")
        uids = lab.submit(6)
        wait_until(lambda: lab.stands("broken", ConsumerStatus.SICK), "it to pause")
        why = lab.view("broken").detail or ""
        assert "3 tasks in a row failed here" in why
        assert "No such file or directory" in why
        wait_until(lambda: not is_healthy("broken"), "its health check to fail")
        assert "consumer=broken is sick, takes nothing, and looks again by itself: 3 tasks in a row" in caplog.text
        # Had it gone on, each task would have failed here by now.
        assert sum(bool(lab.consumers_of(uid)) for uid in uids) < len(uids)
        (work / "moved").rename(attempts)
        (last,) = lab.submit(1)
        wait_until(lambda: lab.status(last) == "finished", lambda: f"{lab.status(last)}, {lab.view('broken')}")
        wait_until(lambda: is_healthy("broken"), "its health check to pass")
