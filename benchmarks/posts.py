"""Posts of 1 KB by 32 clients, durable before they are answered, against a bare FastAPI that syncs a file and a folder.

    .venv/bin/python -m benchmarks.posts [--seconds 6] [--rounds 3] [--system services|standalone]

Each system and the yardstick are measured in turns; the medians count. Nothing runs meanwhile: the tasks need a GPU
that nobody has. Goals: 600/s and a 99th percentile below 100 ms with services; 400/s standalone, 0.3 of the yardstick.
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.bare_api import bare_api
from benchmarks.http_calls import Calls, Figures, send
from benchmarks.overhead import running
from tests.e2e.client import door_of
from tests.e2e.images import echo_image
from tests.zips import make_zip

GOALS = {"services": (600, 100), "standalone": (400, 1000)}
CLIENTS = 32


def main() -> None:
    """Print rates and times, and their ratio to the yardstick."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--system", choices=tuple(GOALS), default="services")
    arguments = parser.parse_args()
    data = make_zip({"a.bin": bytes(range(256)) * 3})
    with (
        tempfile.TemporaryDirectory() as name,
        running(arguments.system, Path(name)) as system,
        door_of(system.url) as door,
        bare_api(Path(name)) as bare_port,
    ):
        model = door.add_model(echo_image(), use_gpu="true")
        path = f"/api/tasks/?human_readable_id={model}"
        found: dict[str, list[Figures]] = {"bare": [], arguments.system: []}
        for _ in range(arguments.rounds):
            for which, port in (("bare", bare_port), (arguments.system, urlsplit(system.url).port or 0)):
                found[which].append(send(post(port, path, data, arguments.seconds)))
    rates = {which: statistics.median(each.rate for each in figures) for which, figures in found.items()}
    for which, figures in found.items():
        p50, p99 = (statistics.median(getattr(each, name) for each in figures) for name in ("p50_ms", "p99_ms"))
        longest, errors = max(each.longest_ms for each in figures), [each.errors for each in figures if each.errors]
        print(
            f"{which:12} {rates[which]:7.0f}/s  p50 {p50:6.1f} ms  p99 {p99:6.1f} ms  longest {longest:6.0f} ms"
            f"  errors {errors or 'none'}"
        )
    rate, p99_ms = GOALS[arguments.system]
    ratio = rates[arguments.system] / rates["bare"]
    print(f"ratio        {ratio:7.2f}   (goal: at least 0.3; {rate}/s, p99 below {p99_ms} ms)")


def post(port: int, path: str, data: bytes, seconds: float) -> Calls:
    """Posts by all clients at once."""
    return Calls(port, [path], CLIENTS, seconds, method="POST", body_hex=data.hex())


if __name__ == "__main__":
    main()
