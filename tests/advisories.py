"""Asks the advisories of OSV about every Python package that is locked for the image: a part of `make check`.

A known hole fails it. Where the advisories cannot be asked, it says so in one line and fails nothing: whoever works
without the internet must be able to check the code.
"""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TOOL = ROOT / ".venv-supply/bin/pip-audit"
LOCK = ROOT / "requirements/server.txt"
LIMIT_S = 60.0
"""For all packages together."""
_ANSWER_S = 10
_UNANSWERED = re.compile(r"requests\.exceptions|ConnectionError|ServiceError")
"""How pip-audit ends where nobody answers, or somebody else does."""


def main(options: Sequence[str]) -> int:
    """Returns 1 if a hole is known. `options` go to pip-audit, as in `--ignore-vuln ID`."""
    command = [TOOL, "--disable-pip", "--require-hashes", "--requirement", LOCK, "--vulnerability-service", "osv"]
    command += ["--timeout", str(_ANSWER_S), "--format", "json", "--progress-spinner", "off", *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return _leave_out(f"no answer within {LIMIT_S:.0f} s")
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        return _explain(done)
    return _judge(found)


def _explain(done: subprocess.CompletedProcess[str]) -> int:
    last = (done.stderr.strip().splitlines() or [f"pip-audit ended with {done.returncode} and said nothing"])[-1]
    if _UNANSWERED.search(last):
        return _leave_out(last)
    print(f"advisories: pip-audit failed: {last}", file=sys.stderr)
    return 1


def _judge(found: Sequence[dict[str, Any]]) -> int:
    holes = [(package, hole) for package in found for hole in package.get("vulns", [])]
    for package, hole in holes:
        fixed = ", ".join(hole["fix_versions"]) or "no release yet"
        named = ", ".join([hole["id"], *hole["aliases"]])
        print(f"advisories: {package['name']} {package['version']} has {named}; fixed in {fixed}", file=sys.stderr)
    if holes:
        return 1
    if skipped := [package["name"] for package in found if "skip_reason" in package]:
        return _leave_out(f"of {', '.join(skipped)}")
    print(f"advisories: no advisory names any of the {len(found)} packages")
    return 0


def _leave_out(why: str) -> int:
    print(f"advisories could not be looked up: {why}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
