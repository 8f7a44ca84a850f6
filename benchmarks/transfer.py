"""Large bodies: seconds for N MiB in and out, against a plain copy, and how much each process's memory grows meanwhile.

    .venv/bin/python -m benchmarks.transfer [--system standalone|services] [--mib 512] [--rounds 3]

The yardstick is a copy of the same bytes with sha256 and fsync, in each round of the same run; a round's figure is its
seconds over those of its copy, and the medians are compared. On a busy machine only the CPU means something: that of
the server's processes, without containers, over that of the copy. The client sends and reads with plain sockets, as
curl does. Goals: the whole way within 6 copies for `standalone` and 8 for `services`, and every process's peak resident
memory grows by less than 32 MiB.
"""

import argparse
import hashlib
import http
import http.client
import json
import os
import statistics
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.overhead import running
from tests.e2e.client import DoorClient, door_of
from tests.e2e.images import echo_image
from tests.e2e.systems import System

MIB = 1024**2
GOAL_MIB = 32
GOAL_RATIOS = {"standalone": 6, "services": 8}
"""3 s and 4 s for 512 MiB, over the 0.5 s that the copy takes on a machine with nothing else to do."""
STAGES = ("upload", "run", "download")
_PATIENCE_S = 600
NOT_ENDED = 551


def main() -> None:
    """Print seconds, ratios and the growth of each process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--system", choices=tuple(GOAL_RATIOS), default="services")
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, running(arguments.system, Path(name)) as system:
        folder = Path(name)
        source = _write_zip(folder / "big.zip", arguments.mib)
        with door_of(system.url) as door:
            model = door.add_model(echo_image())
            _transfer(door, model, _write_zip(folder / "warm.zip", 1))
            with _peaks(system) as peaks:
                cpu_s = _cpu_s(system)
                rounds = [_round(door, model, source) for _ in range(arguments.rounds)]
                cpu_s = _cpu_s(system) - cpu_s
    print(f"{arguments.mib} MiB of random bytes, {arguments.system}, {arguments.rounds} rounds, medians")
    print(f"copy with sha256 and fsync   {statistics.median(each.copy_s for each in rounds):6.2f} s")
    for number, stage in enumerate(STAGES):
        _show(stage, [(each.copy_s, each.stages_s[number]) for each in rounds])
    ratio = _show("all", [(each.copy_s, sum(each.stages_s)) for each in rounds])
    _show("CPU of the server", [(each.copy_cpu_s, cpu_s / len(rounds)) for each in rounds])
    goal = GOAL_RATIOS[arguments.system]
    print(f"the whole way: {ratio:.1f} x the copy   {'ok' if ratio <= goal else f'over the goal of {goal}'}")
    for process, growth in peaks.items():
        verdict = "ok" if growth < GOAL_MIB else f"over the goal of {GOAL_MIB}"
        print(f"memory of {process:<18} +{growth:.0f} MiB   {verdict}")


def _show(stage: str, rounds: list[tuple[float, float]]) -> float:
    seconds = statistics.median(stage_s for _, stage_s in rounds)
    ratio = statistics.median(stage_s / copy_s for copy_s, stage_s in rounds)
    print(f"{stage:<28} {seconds:6.2f} s   {ratio:5.2f} x the copy")
    return ratio


@dataclass(frozen=True)
class _Round:
    copy_s: float
    copy_cpu_s: float
    stages_s: tuple[float, ...]


def _round(door: DoorClient, model: str, source: Path) -> _Round:
    began_cpu_s = time.process_time()
    copy_s = _copy(source, source.with_name("copy.zip"))
    return _Round(copy_s, time.process_time() - began_cpu_s, _transfer(door, model, source))


def _cpu_s(system: System) -> float:
    """What the server's processes have used so far."""
    ticks = 0
    for process in system.processes:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


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
    seconds = time.perf_counter() - began
    target.unlink()
    return seconds


def _transfer(door: DoorClient, model: str, source: Path) -> tuple[float, float, float]:
    """The seconds of each stage. The run is everything between: fetch, unpack, run, collect, upload, commit."""
    began = time.perf_counter()
    headers = {"Content-Type": "application/zip", "Content-Length": str(source.stat().st_size)}
    with _called(door.url) as connection, source.open("rb") as body:
        connection.blocksize = MIB
        connection.request("POST", f"/api/tasks/?human_readable_id={model}", body, headers)
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        uid = json.load(answer)
    uploaded = time.perf_counter()
    received, buffer = 0, bytearray(MIB)
    # Held until the task ends: asking again and again would cost more than what is measured.
    with _ended(door, uid) as answer:
        ended = time.perf_counter()
        while size := answer.readinto(buffer):
            received += size
    assert received > source.stat().st_size * 0.99
    return uploaded - began, ended - uploaded, time.perf_counter() - ended


@contextmanager
def _ended(door: DoorClient, uid: str) -> Iterator[http.client.HTTPResponse]:
    while True:
        with _called(door.url) as connection:
            connection.request("GET", f"/api/tasks/{uid}?wait=30")
            answer = connection.getresponse()
            if answer.status == http.HTTPStatus.OK:
                yield answer
                return
            assert answer.status == NOT_ENDED, answer.read()


@contextmanager
def _called(url: str) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_PATIENCE_S)
    try:
        yield connection
    finally:
        connection.close()


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
