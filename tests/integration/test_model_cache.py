"""Which models' folders are evicted, and which stay, with the engine's own word on what is in use."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from job_consumer.engines import RunKey
from job_consumer.model_cache import make_room
from job_consumer.workspace import WorkDir
from tests.engine_client import engine_client
from tests.integration.engine_harness import MIB, Harness, docker_harness, process_harness
from tests.services import require_docker
from tests.small_disk import small_disk
from tests.unit.consumer_peer import MemoryEngine

PLENTY = 10**15
OLD, MIDDLE, NEW = ("a" * 64, "b" * 64, "c" * 64)


@pytest.fixture(params=["docker", "process"])
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    """Each engine in turn."""
    if request.param == "process":
        with process_harness(tmp_path / "work") as made:
            yield made
        return
    require_docker()
    with closing(engine_client()) as client, docker_harness(tmp_path / "work", client) as made:
        yield made


def fill(work: WorkDir, sha256: str, user: RunKey | None = None) -> None:
    """Use a model of 1 MiB, in the order of the names."""
    work.open_model(sha256, lambda folder: _write(folder / "weights.bin"), user)
    for age, name in enumerate((NEW, MIDDLE, OLD)):
        if (lock := work.root / f"models/{name}.lock").exists():
            os.utime(lock, (1e9 - age, 1e9 - age))


def _write(path: Path) -> None:
    path.write_bytes(os.urandom(MIB))


def names(work: WorkDir) -> list[str]:
    return [model.sha256 for model in work.models()]


def test_the_least_recently_used_model_goes_first(tmp_path: Path) -> None:
    work = WorkDir(tmp_path / "work", "ada")
    for name in (NEW, OLD, MIDDLE):
        fill(work, name)
    assert names(work) == [OLD, MIDDLE, NEW]
    room = {"more_bytes": MIB, "free_at_least": 0}
    make_room(work, MemoryEngine(), budget_bytes=PLENTY, **room)
    assert names(work) == [OLD, MIDDLE, NEW]
    make_room(work, MemoryEngine(), budget_bytes=4 * MIB - 1, **room)
    assert names(work) == [MIDDLE, NEW]
    work.open_model(MIDDLE, lambda _: pytest.fail("it is here"))
    make_room(work, MemoryEngine(), budget_bytes=3 * MIB - 1, **room)
    assert names(work) == [MIDDLE]
    fill(work, OLD)
    assert (work.root / "models" / OLD / "weights.bin").stat().st_size == MIB


def test_models_go_where_the_disk_is_short(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8 * MIB) as disk:
        work = WorkDir(disk / "work", "ada")
        for name in (OLD, MIDDLE, NEW):
            fill(work, name)
        make_room(work, MemoryEngine(), more_bytes=0, budget_bytes=PLENTY, free_at_least=6 * MIB + 1)
        assert names(work) == [NEW]


def test_a_model_that_an_attempt_of_any_consumer_named_stays(tmp_path: Path) -> None:
    work, other = (WorkDir(tmp_path / "work", name) for name in ("ada", "bob"))
    key = RunKey("0" * 64, 1)
    other.open_workspace(key)
    fill(other, OLD, key)
    fill(work, NEW)
    make_room(work, MemoryEngine(), more_bytes=0, budget_bytes=0, free_at_least=0)
    assert names(work) == [OLD]
    other.remove_workspace(key)
    make_room(work, MemoryEngine(), more_bytes=0, budget_bytes=0, free_at_least=0)
    assert names(work) == []


def test_a_model_that_runs_stays_and_its_volume_goes_with_it(harness: Harness) -> None:
    # As the release before this one started it: no file names its model.
    key = harness.start('echo up > "$OUTPUT_DIR/up"; while :; do sleep 0.1; done')
    harness.wait_for_output(key, "up")
    make_room(harness.work, harness.engine, more_bytes=0, budget_bytes=0, free_at_least=0)
    assert len(names(harness.work)) == 1
    if harness.kind == "docker":
        assert kept_volumes(harness) == 1
    harness.engine.remove(key)
    make_room(harness.work, harness.engine, more_bytes=0, budget_bytes=0, free_at_least=0)
    assert names(harness.work) == []
    assert kept_volumes(harness) == 0


def kept_volumes(harness: Harness) -> int:
    """The Engine's volumes over models' folders of this work directory."""
    if harness.kind != "docker":
        return 0
    with closing(engine_client()) as client:
        volumes = client.volumes(filters={"label": "inference-server.kept"})["Volumes"] or []
    return sum(volume["Options"]["device"].startswith(str(harness.work.root)) for volume in volumes)
