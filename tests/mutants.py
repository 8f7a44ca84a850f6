"""Removes one guard at a time, and shows that a test notices. `make mutants` prints the table.

A guard that no test misses protects nothing that anybody could know of. Each is taken out of a copy of the packages,
never of this checkout.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = ("kit", "contract", "private_api", "public_api", "grpc_gateway", "job_consumer", "inference_client")
COPIED_TOO = ("standalone", "operations", "tests", "examples", "runtimes", "pyproject.toml")
RULES, ENDINGS = "tests/integration/test_task_rules.py", "tests/integration/test_task_endings.py"


@dataclass(frozen=True)
class Mutant:
    """One guard, how it is removed, and the test that must notice."""

    guard: str
    path: str
    guarded: str
    """What stands there: once, or it is the wrong place."""
    unguarded: str
    test: str


MUTANTS = (
    Mutant(
        "a commit needs the fence",
        "private_api/tasks/settle.py",
        "            return Settled(status=Status.CANCELLED)\n        check_fence(row, fence)\n",
        "            return Settled(status=Status.CANCELLED)\n",
        f"{ENDINGS}::test_an_output_uploaded_under_an_older_fence_is_never_the_result",
    ),
    Mutant(
        "a heartbeat needs the fence",
        "private_api/tasks/attempts.py",
        "        check_fence(row, fence)\n",
        "",
        f"{RULES}::test_a_heartbeat_under_another_fence_is_refused",
    ),
    Mutant(
        "a heartbeat extends the lease",
        "private_api/tasks/attempts.py",
        "        row.lease_until = now + LEASE\n",
        "        row.lease_until = row.lease_until or now + LEASE\n",
        f"{RULES}::test_a_heartbeat_extends_the_lease",
    ),
    Mutant(
        "a claim takes a task that is queued, and locks it",
        "private_api/placement/task_claim.py",
        "candidates.with_for_update(skip_locked=True).scalar_subquery())\n"
        "        .where(TaskRow.status == Status.QUEUED)\n",
        "candidates.scalar_subquery())\n",
        f"{RULES}::test_consumers_that_claim_at_the_same_time_get_each_task_exactly_once",
    ),
    Mutant(
        "a task that has ended does not change",
        "private_api/migrations/versions/0001_first_schema.py",
        "        IF OLD.status IN ('finished', 'failed', 'cancelled') AND (",
        "        IF FALSE AND (",
        "tests/integration/test_task_guards.py::test_a_task_that_has_ended_refuses_every_change_of_its_outcome",
    ),
    Mutant(
        "an archive is what its digest says",
        "job_consumer/transfer.py",
        "fetch(key.uid, key.fence, target) != sha256",
        "False",
        "tests/integration/test_transfer.py::test_an_input_that_is_not_the_one_of_the_assignment_is_not_run",
    ),
    Mutant(
        "a key that was used answers its task",
        "private_api/tasks/submit.py",
        "        if row is None:\n            return None\n        name, number",
        "        if row is None or key:\n            return None\n        name, number",
        "tests/integration/test_private_api.py::test_the_same_idempotency_key_and_zip_answer_the_same_task",
    ),
    Mutant(
        "leases are extended after the server was away",
        "private_api/loops/reaper.py",
        "if self._forgive_absence():",
        "if False:",
        f"{RULES}::test_leases_are_extended_and_nothing_is_taken_away_after_the_reaper_was_away",
    ),
    Mutant(
        "a cancel that came first wins over a commit",
        "private_api/tasks/settle.py",
        "        if row.cancel_at is not None:\n            end_cancelled(session, row, now)\n            return",
        "        if False:\n            end_cancelled(session, row, now)\n            return",
        f"{ENDINGS}::test_a_cancel_wins_over_a_later_commit",
    ),
)


def main() -> int:
    """Returns 1 if a guard is missed by no test, or is no longer where it was."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        whole = Path(folder) / "whole"
        _copy(whole)
        tests = sorted({mutant.test for mutant in MUTANTS})
        if _run(whole, tests) != 0:
            print("the tests fail with every guard in place", file=sys.stderr)
            return 1
        verdicts = list(pool.map(lambda mutant: _judge(mutant, Path(folder)), MUTANTS))
    width = max(len(mutant.guard) for mutant in MUTANTS)
    print(f"{'removed guard':{width}}  verdict    test")
    for mutant, verdict in zip(MUTANTS, verdicts, strict=True):
        print(f"{mutant.guard:{width}}  {verdict:9}  {mutant.test.rpartition('::')[2]}")
    noticed = verdicts.count("noticed")
    print(f"{noticed} of {len(MUTANTS)} noticed")
    return int(noticed != len(MUTANTS))


def _judge(mutant: Mutant, folder: Path) -> str:
    root = folder / str(MUTANTS.index(mutant))
    _copy(root)
    path = root / mutant.path
    source = path.read_text()
    if source.count(mutant.guarded) != 1:
        return "MOVED"
    path.write_text(source.replace(mutant.guarded, mutant.unguarded))
    # 1 is a test that failed; any other code is a run that told nothing.
    verdict = {0: "MISSED", 1: "noticed"}.get(_run(root, [mutant.test]), "BROKEN")
    shutil.rmtree(root)
    return verdict


def _copy(root: Path) -> None:
    root.mkdir()
    for name in (*COPIED, *COPIED_TOO):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "help_files"))
        else:
            shutil.copy(ROOT / name, root / name)


def _run(root: Path, tests: Sequence[str]) -> int:
    # `-m` puts the copy before the checkout that is installed.
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        print(done.stdout[-2000:], done.stderr[-2000:], file=sys.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
