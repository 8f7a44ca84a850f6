"""What the processes of a running system take: CPU and resident memory, of plain processes and of Compose's containers.

Containers must be on this machine's Engine, so that their processes are seen here.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from tests.e2e.compose import ComposeService
from tests.e2e.systems import System
from tests.engine_client import engine_client

MIB = 1024**2
_EVERY_S = 0.05


def pids_of(system: System) -> dict[str, list[int]]:
    """The processes of each service, as the Engine or this machine numbers them."""
    pids: dict[str, list[int]] = {}
    for service in system.processes:
        if isinstance(service, ComposeService):
            with closing(engine_client()) as client:
                listed = client.top(service.container, ps_args="-eo pid")["Processes"]
            pids[service.name] = [int(row[0]) for row in listed]
        else:
            pids[service.name] = [service.pid]
    return pids


def cpu_s_of(system: System, *, but: tuple[str, ...] = ()) -> float:
    """The CPU time that its processes have used so far, in seconds; without the services named in `but`."""
    ticks = 0
    for name, pids in pids_of(system).items():
        for pid in pids if name not in but else ():
            # What ended meanwhile took nothing more.
            with suppress(FileNotFoundError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def peaks(system: System) -> Iterator[dict[str, float]]:
    """The growth of each service's resident memory in MiB, looked at every 50 ms; filled in when the block ends."""
    pids = pids_of(system)
    before = {name: _resident_mib(each) for name, each in pids.items()}
    highest = dict(before)
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(_EVERY_S):
            for name, each in pids.items():
                highest[name] = max(highest[name], _resident_mib(each))

    sampler = threading.Thread(target=sample)
    sampler.start()
    growth: dict[str, float] = {}
    try:
        yield growth
    finally:
        stop.set()
        sampler.join()
        growth.update({name: highest[name] - before[name] for name in pids})


def _resident_mib(pids: list[int]) -> float:
    pages = 0
    for pid in pids:
        with suppress(FileNotFoundError):
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB
