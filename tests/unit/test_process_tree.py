"""Looking at the processes of a run while they come and go."""

import os
import subprocess
from contextlib import suppress

import pytest

from job_consumer.engines.process import tree


@pytest.mark.skipif(not tree.PROC.joinpath("self/task").is_dir(), reason="needs Linux's /proc")
def test_processes_that_end_meanwhile_are_no_error() -> None:
    """An error here ends a supervisor, and with it the whole run as if it had been killed."""
    script = "i=0; while [ $i -lt 2000 ]; do /bin/true; i=$((i + 1)); done"
    with subprocess.Popen(["sh", "-c", script]) as program:
        try:
            while program.poll() is None:
                tree.descendants(os.getpid())
        finally:
            with suppress(ProcessLookupError):
                program.kill()
