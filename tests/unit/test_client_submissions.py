"""What `infer` remembers of the tasks that were submitted from this machine."""

import subprocess
import sys
from pathlib import Path

import pytest

from inference_client.submissions import MOST_TASKS, Submissions

PROCESSES, EACH, LIMIT = 8, 300, 10
ADD_MANY = f"""
import sys
from pathlib import Path
from inference_client import submissions as module
module.MOST_TASKS = {LIMIT}
submissions = module.Submissions(Path(sys.argv[1]))
for number in range({EACH}):
    submissions.add("http://server", f"{{sys.argv[2]}}-{{number}}", "echo")
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "tasks.jsonl"


def test_the_newest_task_comes_first(path: Path) -> None:
    for uid in ("a", "b"):
        Submissions(path).add("http://server", uid, "echo")
    Submissions(path).add("http://other", "c", "echo")
    assert [task.uid for task in Submissions(path).of("http://server")] == ["b", "a"]


def test_the_oldest_tasks_are_dropped(path: Path) -> None:
    submissions = Submissions(path)
    for number in range(2 * MOST_TASKS + 1):
        submissions.add("http://server", str(number), "echo")
    uids = [task.uid for task in submissions.of("http://server")]
    assert (len(uids), uids[0], uids[-1]) == (MOST_TASKS, str(2 * MOST_TASKS), str(MOST_TASKS + 1))
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_read_is_left_out(path: Path) -> None:
    Submissions(path).add("http://server", "a", "echo")
    with path.open("ab") as file:
        file.write(b'\xff\xfe\n[]\n{"server": "http://server"}\nhalf a li')
    assert [task.uid for task in Submissions(path).of("http://server")] == ["a"]
    assert Submissions(path.parent / "missing").of("http://server") == []


def test_no_task_is_lost_while_many_processes_submit(path: Path) -> None:
    commands = [[sys.executable, "-c", ADD_MANY, str(path), str(number)] for number in range(PROCESSES)]
    processes = [subprocess.Popen(command) for command in commands]
    assert [process.wait() for process in processes] == [0] * PROCESSES
    # One after another they fill the file up to twice the limit, again and again.
    expected = LIMIT + (PROCESSES * EACH - (2 * LIMIT + 1)) % (LIMIT + 1)
    assert len(Submissions(path).of("http://server")) == expected
