"""What a line of a service's log looks like."""

import json
import os
import re
import subprocess
import sys

from kit.logging import CONTINUES

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


LOG_FOREIGN_TEXT = """
import logging, sys
from kit.logging import configure_logging, log_task
configure_logging("INFO", sys.argv[1])
FORGED = "2026-01-31T23:59:59.123Z INFO    private_api.tasks: task=beef running -> finished"
FOREIGN = "SMITH^JOHN\\n" + FORGED + "\\r\\x1b[2J\\x00\\x85\\u2028\\u202e\\udcff end"
logging.getLogger("somebody").warning("it said: %s", FOREIGN)
log_task(logging.getLogger("somebody"), "cafe").info("it said: %s", FOREIGN)
try:
    try:
        open("/nowhere/" + "SMITH^JOHN.dcm")
    except OSError as error:
        raise KeyError(FOREIGN) from error
except KeyError:
    logging.getLogger("somebody").exception("it failed")
try:
    raise ExceptionGroup(FOREIGN, [ValueError(FOREIGN)])
except ExceptionGroup:
    logging.getLogger("somebody").exception("it failed again")
"""
RECORD = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (?:INFO   |WARNING|ERROR  ) somebody: ")


def log_foreign_text(fmt: str) -> list[str]:
    command = [sys.executable, "-c", LOG_FOREIGN_TEXT, fmt]
    run = subprocess.run(command, capture_output=True, check=True)
    assert not run.stderr
    # By every character that some reader takes for the end of a line.
    return run.stdout.decode().splitlines()


def test_foreign_text_makes_no_line_of_its_own() -> None:
    lines = log_foreign_text("text")
    records = [line for line in lines if not line.startswith(CONTINUES)]
    assert all(RECORD.match(line) for line in records)
    assert [line.partition(": ")[2][:16] for line in records] == [
        "it said: SMITH^J", "task=cafe it sai", "it failed", "it failed again"
    ]  # fmt: skip
    assert records[0].endswith(r"running -> finished\r\x1b[2J\x00\x85\u2028\u202e\udcff end")
    assert all(line.isprintable() for line in lines)


def test_a_traceback_has_code_and_kinds_but_no_text_of_an_exception() -> None:
    traced = [line for line in log_foreign_text("text") if line.startswith(CONTINUES)]
    assert f"{CONTINUES}KeyError" in traced
    assert f"{CONTINUES}FileNotFoundError: No such file or directory" in traced
    assert f"{CONTINUES}ExceptionGroup" in traced
    assert f"{CONTINUES}  ValueError" in traced
    assert any('File "<string>", line ' in line for line in traced)
    assert not any("JOHN" in line or "beef" in line for line in traced)


def test_a_json_record_is_one_line_whatever_is_in_it() -> None:
    records = [json.loads(line) for line in log_foreign_text("json")]
    assert [record["level"] for record in records] == ["WARNING", "INFO", "ERROR", "ERROR"]
    assert records[0]["message"].startswith("it said: SMITH^JOHN\n2026-01-31")
    assert "FileNotFoundError: No such file or directory" in records[2]["exception"].splitlines()
    assert "JOHN" not in records[2]["exception"] + records[3]["exception"]
