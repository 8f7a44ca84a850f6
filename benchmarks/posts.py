"""Posts of 1 KB by many clients, durable before they are answered, against a bare FastAPI that syncs file and folder.

    .venv/bin/python -m benchmarks.posts [--seconds 6] [--rounds 3] [--clients 32] [--system services|standalone]

Each system and the yardstick are measured in turns; the medians count. Nothing runs meanwhile: the tasks need a GPU
that nobody has. With several numbers of clients, as `1,8,32`, each is measured. Goals, for 32: 600/s and a 99th
percentile below 100 ms with services; 400/s standalone; 0.3 of the yardstick.
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks import figures
from benchmarks.bare_api import bare_api
from benchmarks.http_calls import Calls, Figures, send
from benchmarks.overhead import running
from tests.e2e.client import door_of
from tests.e2e.images import echo_image
from tests.zips import make_zip

GOALS = {"services": (600, 100), "standalone": (400, 1000)}
OF_GOALS = 32
"""The number of clients that the goals speak of."""


def main() -> None:
    """Print rates and times, and their ratio to the yardstick."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", default=str(OF_GOALS), help="how many at once; several with commas")
    parser.add_argument("--system", choices=tuple(GOALS), default="services")
    figures.add_option(parser)
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
        port = urlsplit(system.url).port or 0
        print(f"system {arguments.system}")
        for clients in map(int, arguments.clients.split(",")):
            found: dict[str, list[Figures]] = {"bare": [], arguments.system: []}
            for _ in range(arguments.rounds):
                for which, target in (("bare", bare_port), (arguments.system, port)):
                    found[which].append(send(post(target, path, data, arguments.seconds, clients)))
            figures.record(arguments.json, *report(arguments.system, clients, found))


def report(system: str, clients: int, found: dict[str, list[Figures]]) -> list[figures.Figure]:
    """Print the medians of one number of clients; returns them as figures."""
    medians = {}
    for which, rounds in found.items():
        names = ("rate", "p50_ms", "p99_ms")
        rate, p50, p99 = (statistics.median(getattr(each, name) for each in rounds) for name in names)
        medians[which] = rate, p99
        longest, errors = max(each.longest_ms for each in rounds), [each.errors for each in rounds if each.errors]
        print(
            f"{clients:4} clients, {which:12} {rate:7.0f}/s  p50 {p50:6.1f} ms  p99 {p99:6.1f} ms"
            f"  longest {longest:6.0f} ms  errors {errors or 'none'}",
            flush=True,
        )
    (bare_rate, bare_p99), (rate, p99) = medians["bare"], medians[system]
    least, most_ms = GOALS[system]
    print(
        f"{'ratio':26} {rate / bare_rate:7.2f}   (goal for {OF_GOALS}: at least 0.3; {least}/s, p99 below {most_ms} ms)"
    )
    is_goal, place = clients == OF_GOALS, {"along": "clients", "at": clients}
    by_itself = [figures.Figure("posts, absolute", rate, "/s", goal=figures.at_least(least))] if is_goal else []
    return [
        figures.compared(
            "posts", rate, "/s", bare_rate, goal=figures.at_least(0.3, "ratio") if is_goal else None, **place
        ),
        *by_itself,
        figures.compared(
            "posts, p99", p99, "ms", bare_p99, goal=figures.at_most(most_ms) if is_goal else None, **place
        ),
    ]


def post(port: int, path: str, data: bytes, seconds: float, clients: int = OF_GOALS) -> Calls:
    """Posts by all clients at once."""
    return Calls(port, [path], clients, seconds, method="POST", body_hex=data.hex())


if __name__ == "__main__":
    main()
