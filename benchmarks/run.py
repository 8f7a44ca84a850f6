"""Runs the benchmarks one after another, each as a process of its own, and writes one table of what they found.

    .venv/bin/python -m benchmarks.run [--only "starts janitor"] [--size small|full] [--out benchmarks-out]

`make bench` is the same. Results are written after each benchmark, beside those that the folder has of others: JSON, a
page with the table, and a picture of each curve. One that fails, takes too long or lacks something here says so in its
row. The exit code is 0 if all that could run ran to their ends, whatever their figures.
"""

import argparse
import importlib.util
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime
from os import getpgid, killpg
from pathlib import Path

from benchmarks import figures, machine, results
from benchmarks.results import Result
from benchmarks.suite import ENTRIES, Entry, Size, picked

_LIMITS_S: dict[Size, float] = {"small": 900, "full": 4 * 3600}
"""How long one benchmark may take."""
_SHUT_DOWN_S = 60
"""For what it started to end, once its own time is over."""


def main() -> int:
    """Run what is picked; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="names of benchmarks; all of them without")
    parser.add_argument("--size", choices=tuple(_LIMITS_S), default="small")
    parser.add_argument("--out", type=Path, default=Path("benchmarks-out"))
    arguments = parser.parse_args()
    try:
        entries = picked(arguments.only)
    except ValueError as error:
        parser.error(str(error))
    described = machine.describe()
    kept = results.read(arguments.out)
    made = []
    for entry in entries:
        kept[entry.name] = run(entry, arguments.size, described)
        made.append(kept[entry.name])
        results.write(arguments.out, [kept[each.name] for each in ENTRIES if each.name in kept])
    print(f"\n{results.table(made)}\nwritten to {arguments.out / results.TABLE}")
    return int(any(result.problem.startswith("failed") for result in made))


def run(entry: Entry, size: Size, described: dict[str, str]) -> Result:
    """Run one benchmark; what it prints passes through."""
    options = shlex.split(entry.small if size == "small" else entry.full)
    command = ["-m", f"benchmarks.{entry.module}", *options]
    shown = shlex.join(["python", *command])
    print(f"\n== {entry.name}: {shown}", flush=True)
    load_before, began, at = machine.load(), time.monotonic(), datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
    found: list[figures.Figure] = []
    if importlib.util.find_spec(f"benchmarks.{entry.module}") is None:
        problem = f"not run: there is no benchmarks/{entry.module}.py"
    elif missing := machine.lacks(entry.needs):
        problem = f"not run: {missing}"
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "figures.jsonl"
            problem = _execute([sys.executable, *command, "--json", str(path)], _LIMITS_S[size])
            found = figures.read(path)
    if problem:
        print(problem, flush=True)
    seconds = time.monotonic() - began
    return Result(entry.name, shown, size, at, seconds, load_before, machine.load(), described, problem, found)


def _execute(command: list[str], limit_s: float) -> str:
    """Run it in a group of its own. Returns why it did not come to its end, or an empty text."""
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stderr=errors, start_new_session=True) as process,
    ):
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            _end(process)
            return f"failed: not over after {limit_s:.0f} s"
        except KeyboardInterrupt:
            _end(process)
            raise
        errors.seek(0)
        said = errors.read()
    sys.stderr.write(said)
    last = next((line for line in reversed(said.splitlines()) if line.strip()), "")
    return "" if code == 0 else f"failed, exit code {code}: {last[:200]}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """As Ctrl-C would, so that it stops what it started; by force if that takes too long."""
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_SHUT_DOWN_S)
        except subprocess.TimeoutExpired:
            killpg(getpgid(process.pid), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
