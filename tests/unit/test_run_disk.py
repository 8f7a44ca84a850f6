"""Who is blamed where a disk gets full, and what a run may write at all."""

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from contract.deployments import ReplicaAssignment
from contract.private_client import PrivateClient
from contract.statuses import Reason
from job_consumer.container_spec import Limits, Sandbox
from job_consumer.context import ConsumerContext
from job_consumer.engines import RunKey, RunKind
from job_consumer.output.failures import ModelFailed
from job_consumer.replicas.ready import ReadyReplicas
from job_consumer.replicas.replica import Replica
from job_consumer.run_disk import DiskFull, DiskLimits, RunDisk
from job_consumer.settings import Credential
from job_consumer.workspace import WorkDir
from tests.small_disk import MIB, fill_disk, small_disk
from tests.unit.consumer_peer import MemoryEngine, consumer_peer
from tests.waiting import wait_until

KEY = RunKey("0" * 64, 1)
LIMITS = DiskLimits(output_bytes=64 * MIB, scratch_bytes=64 * MIB, reserve_bytes=8 * MIB)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """32 MiB, with a folder /output."""
    with small_disk(tmp_path / "disk", 32 * MIB) as folder:
        (folder / "output").mkdir()
        yield folder


def run_disk(disk: Path, limits: DiskLimits = LIMITS, engine: MemoryEngine | None = None) -> RunDisk:
    return RunDisk(engine or MemoryEngine(), KEY, disk / "output", limits, measure_s=0)


def await_fault(watched: RunDisk) -> ModelFailed:
    """The fault at the next measuring."""
    found: list[ModelFailed] = []

    def look() -> bool:
        if (failed := watched.fault()) is not None:
            found.append(failed)
        return bool(found)

    wait_until(look)
    return found[0]


def test_a_run_that_fills_the_disk_is_told_how_much_it_wrote(disk: Path) -> None:
    watched = run_disk(disk)
    assert watched.fault() is None
    fill_disk(disk / "output", leave=6 * MIB)
    for failed in (watched.fault(), watched.shortage()):
        assert failed is not None
        assert failed.reason is Reason.OUTPUT_TOO_LARGE
        assert failed.detail == (
            f"the host's disk has {6 * MIB} bytes left, less than the reserve of {8 * MIB}: "
            f"the run wrote {26 * MIB} bytes of output and 0 elsewhere"
        )


def test_a_run_is_not_blamed_for_what_others_write(disk: Path) -> None:
    watched = run_disk(disk)
    (disk / "output/mask.bin").write_bytes(bytes(4 * MIB))
    fill_disk(disk, leave=6 * MIB)
    with pytest.raises(DiskFull, match=f"which something else has filled: the run wrote {4 * MIB} bytes of output"):
        watched.fault()


def test_a_run_is_not_blamed_for_a_disk_that_was_full_before(disk: Path) -> None:
    fill_disk(disk, leave=6 * MIB)
    with pytest.raises(DiskFull):
        run_disk(disk).fault()


def test_an_adopted_run_is_blamed_for_what_it_wrote_before(disk: Path) -> None:
    fill_disk(disk / "output", leave=6 * MIB)
    assert run_disk(disk).fault() is not None


def test_what_is_written_elsewhere_counts_and_is_bounded(disk: Path) -> None:
    engine = MemoryEngine()
    watched = run_disk(disk, DiskLimits(64 * MIB, 3 * MIB, 8 * MIB), engine)
    engine.written = 3 * MIB
    assert watched.fault() is None
    engine.written += 1
    failed = await_fault(watched)
    assert failed.detail == (
        f"the run wrote 0 bytes of output and {3 * MIB + 1} elsewhere; there, SCRATCH_BYTES={3 * MIB} are allowed"
    )
    engine.written = 26 * MIB
    fill_disk(disk, leave=6 * MIB)
    failed = watched.fault()
    assert failed is not None
    assert "elsewhere" in failed.detail
    assert "disk has" in failed.detail


def test_output_is_bounded(disk: Path) -> None:
    watched = run_disk(disk, DiskLimits(MIB, MIB, 0))
    (disk / "output/mask.bin").write_bytes(bytes(MIB + 1))
    failed = await_fault(watched)
    assert failed.detail == f"/output reached {MIB + 1} bytes; {MIB} are allowed"


def test_a_replica_that_fills_the_disk_is_ended_and_that_is_told(tmp_path: Path) -> None:
    assignment = ReplicaAssignment.model_validate(
        {
            "uid": "ab" * 32,
            "fence": 1,
            "lease_s": 60,
            "human_readable_id": "echo",
            "model_version": 1,
            "container_tag": "echo:1",
            "use_gpu": False,
            "pull_policy": "never",
            "isolation": "strict",
            "memory_limit_bytes": None,
            "max_unpacked_bytes": 1000,
            "model_archive": None,
            "serving": {"port": 8001, "readiness": "tcp"},
            "environment": {},
        }
    )
    with consumer_peer(heartbeat=[{"stop": False}]) as peer, closing(PrivateClient(peer.url, "a-secret")) as api:
        engine = MemoryEngine(address=peer.url.removeprefix("http://"))
        engine.written = 10**12
        # No disk has as much left.
        limits = Limits(1000, None, 3, 400, 5, 6, disk_reserve_bytes=10**18)
        context = ConsumerContext(
            credential=Credential("SERVICE_TOKEN", "a-secret"),
            sandbox=Sandbox("ada", limits, network="replicas"),
            api=api,
            engine=engine,
            work=WorkDir(tmp_path / "work", "ada"),
            stopping=threading.Event(),
        )
        Replica(context, engine, ReadyReplicas(), assignment).run()
        (told,) = peer.wait_for("end", 1)
    assert set(engine.removed) == {RunKey(assignment.uid, 1, RunKind.REPLICA)}
    assert json.loads(told)["reason"] == "container_ended"
    assert f"the run wrote 0 bytes of output and {10**12} elsewhere" in json.loads(told)["detail"]
