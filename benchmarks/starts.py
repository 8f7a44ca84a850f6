"""Starts and stops: seconds until a command answers, until a standalone server is ready, and until it has ended.

    .venv/bin/python -m benchmarks.starts [--rounds 5]

The yardstick is the start of the interpreter itself, `python -c pass`, in turns with the others in the same run.
Goals, as seconds on a machine with nothing else to do: `infer --version` 0.15, ready 1.0, stopped 0.5.
"""

import argparse
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import figures
from tests.e2e.systems import free_port

_GOALS_S = {"infer --version": 0.15, "infer --help": None, "standalone ready": 1.0, "standalone stopped": 0.5}
_IDLE_S = 1.0
"""For the consumer to register and to wait for work before it is stopped."""


def main() -> None:
    """Print the medians, and how many starts of the interpreter each is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    figures.add_option(parser)
    arguments = parser.parse_args()
    rounds = arguments.rounds
    with tempfile.TemporaryDirectory() as folder:
        # The first turn makes the database, and warms caches.
        turns = [_turn(Path(folder)) for _ in range(rounds + 1)][1:]
    yardstick_s = statistics.median(turn["python -c pass"] for turn in turns)
    print(f"python -c pass         {yardstick_s:6.3f} s   medians of {rounds}")
    for name, goal_s in _GOALS_S.items():
        seconds = statistics.median(turn[name] for turn in turns)
        goal = "" if goal_s is None else f"   (goal on an idle machine: {goal_s} s)"
        print(f"{name:<20}   {seconds:6.3f} s   {seconds / yardstick_s:5.0f} x{goal}")
        bound = None if goal_s is None else figures.at_most(goal_s)
        figures.record(arguments.json, figures.compared(name, seconds, "s", yardstick_s, goal=bound))


def _turn(folder: Path) -> dict[str, float]:
    ready_s, stopped_s = _serve(folder)
    client = [sys.executable, "-m", "inference_client"]
    return {
        "python -c pass": _run([sys.executable, "-c", "pass"]),
        "infer --version": _run([*client, "--version"]),
        "infer --help": _run([*client, "--help"]),
        "standalone ready": ready_s,
        "standalone stopped": stopped_s,
    }


def _run(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def _serve(folder: Path) -> tuple[float, float]:
    ports = ["--port", str(free_port()), "--grpc-port", str(free_port())]
    command = [sys.executable, "-m", "operations", "standalone", "--data-dir", str(folder / "data"), *ports]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "is ready" in line:
                break
        ready_s = time.perf_counter() - began
        time.sleep(_IDLE_S)
        began = time.perf_counter()
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert process.returncode == 0
    return ready_s, time.perf_counter() - began


if __name__ == "__main__":
    main()
