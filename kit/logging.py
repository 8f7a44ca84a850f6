"""The log format of every service: one line per event on stdout, as text or JSON.

Times are UTC in RFC 3339, as in `2026-01-31T23:59:59.123Z`, whatever the host's zone.

`log_task(logger, uid)` puts `task=<uid>` first, and `log_replica` puts `replica=<uid>`. Every line ends with the
request id of the HTTP call being served, if any.

A record is one line, whatever is in it: what no printer shows, such as a line break or an escape sequence, is written
as Python writes it in a string. In the text format the lines of a traceback follow their record, each behind
`CONTINUES`, with which no record begins; in JSON they are a field of it. A traceback has the lines of our code and the
kinds of the exceptions. It lacks their texts, which may quote what belongs to a task: a file's name, a line that a
container wrote, a row of the database. Whoever wants the text of an error in the log writes it into the message.
"""

import json
import logging
import sys
import traceback
from collections.abc import MutableMapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Set by the HTTP edge during a request."""


CONTINUES = "    | "
"""What each line of a traceback begins with in the text format."""


def one_line(text: str) -> str:
    """The text with everything escaped that a terminal or a reader of lines would not take for a character of it."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _trace(error: BaseException | None) -> list[str]:
    """The lines of an exception and of those that led to it, the first one first, without their texts."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    lines = []
    for each in reversed(chain):
        frames = "".join(traceback.format_tb(each.__traceback__)).splitlines()
        lines += [*(["Traceback (most recent call last):", *frames] if frames else []), _kind(each)]
        for inner in each.exceptions if isinstance(each, BaseExceptionGroup) else ():
            lines += [f"  {line}" for line in _trace(inner)]
    return lines


def _kind(error: BaseException) -> str:
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    # What the system said, which has no name in it.
    return f"{name}: {error.strerror}" if isinstance(error, OSError) and error.errno and error.strerror else name


class _Formatter(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        moment = datetime.fromtimestamp(record.created, UTC)
        return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"

    def trace(self, record: logging.LogRecord) -> list[str]:
        """The lines of the record's traceback, if it has one."""
        return [one_line(line) for line in _trace(record.exc_info[1])] if record.exc_info else []


class _TextFormatter(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        record.message = record.getMessage()
        record.asctime = self.formatTime(record)
        current = request_id.get()
        line = one_line(self.formatMessage(record)) + (f" request={current}" if current else "")
        return "\n".join([line, *(CONTINUES + each for each in self.trace(record))])


class _JsonFormatter(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields |= getattr(record, "subject", {})
        if current := request_id.get():
            fields["request"] = current
        if trace := self.trace(record):
            fields["exception"] = "\n".join(trace)
        # ASCII alone, so that everything that is no character is escaped.
        return json.dumps(fields)


class SubjectLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose every line starts with the task or replica that it is about."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Prefix the message, and add the uid as a field of its own for the JSON format."""
        kwargs["extra"] = {"subject": self.extra}
        return " ".join([*(f"{kind}={uid}" for kind, uid in (self.extra or {}).items()), msg]), kwargs


def log_task(logger: logging.Logger, uid: str) -> SubjectLogger:
    """A logger for lines about one task."""
    return SubjectLogger(logger, {"task": uid})


def log_replica(logger: logging.Logger, uid: str) -> SubjectLogger:
    """A logger for lines about one replica."""
    return SubjectLogger(logger, {"replica": uid})


def configure_logging(level: str, fmt: str) -> None:
    """Send every log line of this process to stdout."""
    handler = logging.StreamHandler(sys.stdout)
    text = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    handler.setFormatter(_JsonFormatter() if fmt == "json" else _TextFormatter(text))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for chatty in ("httpx", "httpcore", "urllib3", "docker", "alembic"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLevelName(level)))
    # The broker logs a failed connection once; pika would log it five times, as errors.
    logging.getLogger("pika").setLevel(logging.CRITICAL)
