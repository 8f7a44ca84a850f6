"""What a run takes of its host's disks: measured while it runs, and why it must be ended for it.

The disk is looked at often, which costs nothing. The run's files are counted seldom, and when the disk is nearly full:
then their sum decides whether the run filled it, or something else did.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from contract.statuses import Reason
from job_consumer.descriptors import allocated_bytes
from job_consumer.engines import Engine, EngineUnavailable, RunKey, RunVanished
from job_consumer.output.failures import ModelFailed
from job_consumer.output.measure import measure_folder
from kit.disk import free_bytes

MEASURE_S = 5.0
_SHARE = 20
"""Measuring takes at most this part of the time."""


class DiskFull(OSError):
    """The host's disk is nearly full, and the run is not what filled it."""


def require_room(folder: Path, more_bytes: int, reserve_bytes: int) -> None:
    """Raises `DiskFull` if writing so much below a folder would leave less than the reserve of its disk."""
    if (free := free_bytes(folder)) < more_bytes + reserve_bytes:
        raise DiskFull(
            f"the host's disk has {free} bytes left; {more_bytes} are needed above the reserve of {reserve_bytes}"
        )


@dataclass(frozen=True)
class DiskLimits:
    """What one run may take of the disks, and what it must leave there."""

    output_bytes: int
    scratch_bytes: int
    """Beside /output."""
    reserve_bytes: int


@dataclass(frozen=True)
class _Written:
    output: int
    scratch: int

    def __str__(self) -> str:
        return f"the run wrote {self.output} bytes of output and {self.scratch} elsewhere"


class RunDisk:
    """The disks of one run. Made before it starts, or when it is adopted: what it could take is known by that.

    Raises `OSError`, as its methods do, if a disk cannot be looked at. While the engine is away, the last count stands.
    """

    def __init__(
        self,
        engine: Engine,
        key: RunKey,
        output_dir: Path,
        limits: DiskLimits,
        *,
        progress_dir: Path | None = None,
        measure_s: float = MEASURE_S,
    ) -> None:
        self._engine = engine
        self._key = key
        self._output_dir = output_dir
        self._progress_dir = progress_dir
        self._limits = limits
        self._measure_s = measure_s
        self._scratch = 0
        self._storage = self._find_storage()
        written = self._measure()
        self._room = {disk: free_bytes(disk) + self._part(written, disk) for disk in self._disks()}

    def fault(self) -> ModelFailed | None:
        """Why the run must be ended, if it must. Raises `DiskFull`."""
        failed = self.shortage()
        if failed is not None or time.monotonic() < self._due:
            return failed
        written, limits = self._measure(), self._limits
        if written.output > limits.output_bytes:
            detail = f"/output reached {written.output} bytes; {limits.output_bytes} are allowed"
        elif written.scratch > limits.scratch_bytes:
            detail = f"{written}; there, SCRATCH_BYTES={limits.scratch_bytes} are allowed"
        else:
            return None
        return ModelFailed(Reason.OUTPUT_TOO_LARGE, detail)

    def shortage(self) -> ModelFailed | None:
        """The failure of a run that left less than the reserve. Raises `DiskFull` if it took the smaller part of it."""
        reserve = self._limits.reserve_bytes
        for disk in self._disks():
            if (free := free_bytes(disk)) >= reserve:
                continue
            written = self._measure()
            left = f"the host's disk has {free} bytes left, less than the reserve of {reserve}"
            if self._part(written, disk) * 2 > self._room[disk] - free:
                return ModelFailed(Reason.OUTPUT_TOO_LARGE, f"{left}: {written}")
            raise DiskFull(f"{left}, which something else has filled: {written}")
        return None

    def _find_storage(self) -> Path | None:
        """The engine's disk, if it is another one than that of /output."""
        try:
            storage = self._engine.storage_dir()
        except EngineUnavailable:
            return None
        return storage if storage and storage.stat().st_dev != self._output_dir.stat().st_dev else None

    def _disks(self) -> list[Path]:
        return [self._output_dir, *([self._storage] if self._storage else [])]

    def _part(self, written: _Written, disk: Path) -> int:
        """What of this lies on a disk. Where the engine's is not seen, it is taken for the one of /output."""
        if disk == self._storage:
            return written.scratch
        return written.output + (0 if self._storage else written.scratch)

    def _measure(self) -> _Written:
        began = time.monotonic()
        try:
            self._scratch = self._engine.written_bytes(self._key)
        except RunVanished:
            self._scratch = 0
        except EngineUnavailable:
            pass  # What it was last time.
        scratch = self._scratch + (allocated_bytes(self._progress_dir) if self._progress_dir else 0)
        written = _Written(measure_folder(self._output_dir), scratch)
        ended = time.monotonic()
        self._due = ended + max(self._measure_s, (ended - began) * _SHARE)
        return written
