"""Large bodies: seconds for N MiB in and out, against a plain copy, and how much each process's memory grows meanwhile.

    .venv/bin/python -m benchmarks.transfer [--system standalone|services|compose] [--mib 512] [--rounds 3]

The yardstick is a copy of the same bytes with sha256 and fsync, in each round of the same run; a round's figure is its
seconds over those of its copy, and the medians are compared. On a busy machine only the CPU means something: that of
the server's processes, without containers, over that of the copy. The client sends and reads with plain sockets, as
curl does. With several sizes, as `8,64,512`, each is measured. Goals, for 512 MiB on a machine with nothing else to do:
the whole way within 3 s standalone, 4 s with services, 5 s with Compose and TLS, which are 6, 8 and 10 copies where one
takes 0.5 s; and every process's peak resident memory grows by less than 32 MiB.
"""

import argparse
import hashlib
import http
import http.client
import json
import os
import ssl
import statistics
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks import figures
from benchmarks.overhead import running
from benchmarks.resources import cpu_s_of, peaks
from tests.e2e.client import DoorClient, door_of
from tests.e2e.images import echo_image
from tests.e2e.systems import System

MIB = 1024**2
GOAL_MIB = 32
GOAL_OF_MIB = 512
GOALS_S = {"standalone": 3, "services": 4, "compose": 5}
_COPY_S = 0.5
"""What the copy of so many takes on a machine with nothing else to do."""
STAGES = ("upload", "run", "download")
_PATIENCE_S = 600
NOT_ENDED = 551


def main() -> None:
    """Print seconds, ratios and the growth of each process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--system", choices=tuple(GOALS_S), default="services")
    parser.add_argument("--mib", default=str(GOAL_OF_MIB), help="one size, or several with commas")
    parser.add_argument("--rounds", type=int, default=3)
    figures.add_option(parser)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, running(arguments.system, Path(name)) as system:
        folder = Path(name)
        with door_of(system.url, system.verify) as door:
            model = door.add_model(echo_image())
            _transfer(door, model, _write_zip(folder / "warm.zip", 1))
            for mib in map(int, arguments.mib.split(",")):
                figures.record(arguments.json, *measure(system, door, model, folder, mib=mib, rounds=arguments.rounds))


def measure(
    system: System, door: DoorClient, model: str, folder: Path, *, mib: int, rounds: int
) -> list[figures.Figure]:
    """Print what one size takes; returns it as figures."""
    source = _write_zip(folder / "big.zip", mib)
    with peaks(system) as grown:
        cpu_s = cpu_s_of(system)
        taken = [_round(door, model, source) for _ in range(rounds)]
        cpu_s = cpu_s_of(system) - cpu_s
    source.unlink()
    print(f"{mib} MiB of random bytes, {system.name}, {rounds} rounds, medians")
    copy_s = statistics.median(each.copy_s for each in taken)
    print(f"copy with sha256 and fsync   {copy_s:6.2f} s")
    for number, stage in enumerate(STAGES):
        _show(stage, [(each.copy_s, each.stages_s[number]) for each in taken])
    seconds, ratio = _show("all", [(each.copy_s, sum(each.stages_s)) for each in taken])
    _show("CPU of the server", [(each.copy_cpu_s, cpu_s / len(taken)) for each in taken])
    goal_s = GOALS_S[system.name]
    copies = goal_s / _COPY_S
    print(f"the whole way: {ratio:.1f} x the copy   {'ok' if ratio <= copies else f'over the goal of {copies:g}'}")
    for process, growth in grown.items():
        verdict = "ok" if growth < GOAL_MIB else f"over the goal of {GOAL_MIB}"
        print(f"memory of {process:<18} +{growth:.0f} MiB   {verdict}", flush=True)
    name, place = f"{system.name}, in and out", {"along": "MiB", "at": mib}
    is_goal = mib == GOAL_OF_MIB
    bounds = (figures.at_most(goal_s), figures.at_most(copies, "ratio"), figures.at_most(GOAL_MIB))
    of_seconds, of_copies, of_memory = bounds if is_goal else (None, None, None)
    found = [figures.Figure(name, seconds, "s", copy_s, ratio, of_copies, **place)]
    if is_goal:
        found.append(figures.Figure(f"{name}, absolute", seconds, "s", goal=of_seconds))
    return [
        *found,
        *(figures.Figure(f"growth of {each}", grown[each], "MiB", goal=of_memory, **place) for each in grown),
    ]


def _show(stage: str, rounds: list[tuple[float, float]]) -> tuple[float, float]:
    seconds = statistics.median(stage_s for _, stage_s in rounds)
    ratio = statistics.median(stage_s / copy_s for copy_s, stage_s in rounds)
    print(f"{stage:<28} {seconds:6.2f} s   {ratio:5.2f} x the copy")
    return seconds, ratio


@dataclass(frozen=True)
class _Round:
    copy_s: float
    copy_cpu_s: float
    stages_s: tuple[float, ...]


def _round(door: DoorClient, model: str, source: Path) -> _Round:
    began_cpu_s = time.process_time()
    copy_s = copy(source, source.with_name("copy.zip"))
    return _Round(copy_s, time.process_time() - began_cpu_s, _transfer(door, model, source))


def _write_zip(path: Path, mib: int) -> Path:
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive,
        archive.open("data.bin", "w", force_zip64=True) as f,
    ):
        for _ in range(mib):
            f.write(os.urandom(MIB))
    return path


def copy(source: Path, target: Path) -> float:
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
    with _called(door) as connection, source.open("rb") as body:
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
        with _called(door) as connection:
            connection.request("GET", f"/api/tasks/{uid}?wait=30")
            answer = connection.getresponse()
            if answer.status == http.HTTPStatus.OK:
                yield answer
                return
            assert answer.status == NOT_ENDED, answer.read()


@contextmanager
def _called(door: DoorClient) -> Iterator[http.client.HTTPConnection]:
    host = urlsplit(door.url).netloc
    if isinstance(door.verify, str):
        context = ssl.create_default_context(cafile=door.verify)
        connection = http.client.HTTPSConnection(host, timeout=_PATIENCE_S, context=context)
    else:
        connection = http.client.HTTPConnection(host, timeout=_PATIENCE_S)
    try:
        yield connection
    finally:
        connection.close()


if __name__ == "__main__":
    main()
