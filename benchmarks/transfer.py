"""Large bodies: seconds for N MiB in and out, and how much each process's memory grows meanwhile.

    .venv/bin/python -m benchmarks.transfer [--mib 512]

The yardstick is a plain copy of the same bytes with sha256 and fsync, in the same run. Goal: every process's peak
resident memory grows by less than 32 MiB.
"""

import argparse
import hashlib
import os
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from benchmarks.overhead import running
from tests.e2e.client import DoorClient, door_of
from tests.e2e.images import echo_image
from tests.e2e.systems import System

MIB = 1024**2
GOAL_MIB = 32


def main() -> None:
    """Print seconds, ratios and the growth of each process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=512)
    mib = parser.parse_args().mib
    with tempfile.TemporaryDirectory() as name, running("services", Path(name)) as system:
        folder = Path(name)
        source = _write_zip(folder / "big.zip", mib)
        copy_s = _copy(source, folder / "copy.zip")
        with door_of(system.url) as door, _peaks(system) as peaks:
            upload_s, run_s, download_s = _transfer(door, source)
    print(f"{mib} MiB of random bytes, services as separate processes")
    print(f"copy with sha256 and fsync   {copy_s:6.2f} s")
    print(f"upload                       {upload_s:6.2f} s   {upload_s / copy_s:5.2f} x the copy")
    print(f"run (fetch, unpack, echo, collect, upload) {run_s:6.2f} s")
    print(f"download                     {download_s:6.2f} s   {download_s / copy_s:5.2f} x the copy")
    for process, growth in peaks.items():
        verdict = "ok" if growth < GOAL_MIB else f"over the goal of {GOAL_MIB}"
        print(f"memory of {process:<18} +{growth:.0f} MiB   {verdict}")


def _write_zip(path: Path, mib: int) -> Path:
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive,
        archive.open("data.bin", "w", force_zip64=True) as f,
    ):
        for _ in range(mib):
            f.write(os.urandom(MIB))
    return path


def _copy(source: Path, target: Path) -> float:
    began = time.perf_counter()
    digest = hashlib.sha256()
    with source.open("rb") as read, target.open("wb") as write:
        while piece := read.read(MIB):
            digest.update(piece)
            write.write(piece)
        os.fsync(write.fileno())
    return time.perf_counter() - began


def _transfer(door: DoorClient, source: Path) -> tuple[float, float, float]:
    model = door.add_model(echo_image())
    began = time.perf_counter()
    with source.open("rb") as body:
        answer = door.http.post(
            "/api/tasks/",
            params={"human_readable_id": model},
            content=_pieces(body),
            headers={"Content-Type": "application/zip", "Content-Length": str(source.stat().st_size)},
        )
    uid = answer.json()
    uploaded = time.perf_counter()
    while door.status(uid)["status"] not in ("finished", "failed"):
        time.sleep(0.1)
    ended = time.perf_counter()
    received = 0
    with door.http.stream("GET", f"/api/tasks/{uid}/output", timeout=httpx.Timeout(120)) as output:
        assert output.status_code == 200
        for piece in output.iter_raw(MIB):
            received += len(piece)
    assert received > source.stat().st_size * 0.99
    return uploaded - began, ended - uploaded, time.perf_counter() - ended


def _pieces(body: object) -> Iterator[bytes]:
    while piece := body.read(MIB):  # type: ignore[attr-defined]
        yield piece


@contextmanager
def _peaks(system: System) -> Iterator[dict[str, float]]:
    """The growth of each process's resident memory in MiB, sampled every 50 ms; filled in when the block ends."""
    pids = {process.name: process.pid for process in system.processes}
    before = {name: _resident_mib(pid) for name, pid in pids.items()}
    highest = dict(before)
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(0.05):
            for name, pid in pids.items():
                highest[name] = max(highest[name], _resident_mib(pid))

    sampler = threading.Thread(target=sample)
    sampler.start()
    growth: dict[str, float] = {}
    try:
        yield growth
    finally:
        stop.set()
        sampler.join()
        growth.update({name: highest[name] - before[name] for name in pids})


def _resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


if __name__ == "__main__":
    main()
