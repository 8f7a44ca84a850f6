"""What a line of a service's log looks like."""

import json
import os
import subprocess
import sys

# Half a second after the epoch, logged by a process on a host in another zone.
LOG_ONE_LINE = """
import logging, sys
from kit.logging import configure_logging
configure_logging("INFO", sys.argv[1])
record = logging.LogRecord("somebody", logging.INFO, "file", 1, "says something", (), None)
record.created, record.msecs = 0.5, 500.0
logging.getLogger().handle(record)
"""


def log_one_line(fmt: str) -> str:
    environment = {**os.environ, "TZ": "Asia/Kathmandu"}
    command = [sys.executable, "-c", LOG_ONE_LINE, fmt]
    return subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stdout


def test_a_text_line_begins_with_its_time_in_utc() -> None:
    assert log_one_line("text") == "1970-01-01T00:00:00.500Z INFO    somebody: says something\n"


def test_a_json_line_has_its_time_in_utc() -> None:
    assert json.loads(log_one_line("json")) == {
        "time": "1970-01-01T00:00:00.500Z",
        "level": "INFO",
        "logger": "somebody",
        "message": "says something",
    }
