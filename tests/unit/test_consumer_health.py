"""When a consumer counts as sick: what its checks find, and tasks in a row that failed."""

from pathlib import Path

from job_consumer.health import Health, WorkDisk

GIB = 1024**3


def test_the_first_check_that_finds_something_says_why() -> None:
    found: dict[str, str | None] = {"disk": None, "engine": "no Docker Engine answers"}
    health = Health("ada", [lambda: found["disk"], lambda: found["engine"]], lambda: 42)
    seen = health.look()
    assert (seen.trouble, seen.free_bytes, health.trouble) == ("no Docker Engine answers", 42, seen.trouble)
    found["disk"] = "it is full"
    assert health.look().trouble == "it is full"
    found["disk"] = found["engine"] = None
    assert (health.look().trouble, health.trouble) == (None, None)


def test_one_task_may_fail_again_and_again_without_a_pause() -> None:
    health = Health(first_pause_s=1000)
    for _ in range(9):
        health.note_failed("a", "broken")
    health.note_failed("b", "broken")
    assert (health.pause_s(), health.look().trouble) == (0, None)


def test_the_pause_grows_with_each_failure_and_ends_with_a_run() -> None:
    health = Health(first_pause_s=1000, longest_pause_s=5000)
    for uid in ("a", "b", "c"):
        health.note_failed(uid, f"{uid} broke")
    assert 500 < health.pause_s() <= 1000
    trouble = health.look().trouble or ""
    assert "3 tasks in a row failed here, so it tries the next one after 1000 s" in trouble
    assert "the last failure: c broke" in trouble
    # Also one that failed before.
    health.note_failed("a", "broken")
    assert 1500 < health.pause_s() <= 2000
    for _ in range(5):
        health.note_failed("d", "broken")
    assert 4500 < health.pause_s() <= 5000
    health.note_worked()
    assert (health.pause_s(), health.look().trouble) == (0, None)
    health.note_failed("d", "broken")
    assert health.pause_s() == 0


def test_a_disk_below_its_floor_or_out_of_reach_takes_no_task(tmp_path: Path) -> None:
    assert WorkDisk(tmp_path, 0).check() is None
    free = WorkDisk(tmp_path, 0).free_bytes()
    assert free is not None
    assert free > 0
    full = WorkDisk(tmp_path, 2**60)
    assert "free, less than the 1073741824.0 GiB of MIN_FREE_BYTES" in (full.check() or "")
    assert full.free_bytes() == 0
    gone = WorkDisk(tmp_path / "gone", 0)
    assert "gone cannot be read: No such file or directory" in (gone.check() or "")
    assert gone.free_bytes() is None
