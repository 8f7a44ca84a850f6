"""The log format of every service: one line per event on stdout, as text or JSON.

Times are UTC in RFC 3339, as in `2026-01-31T23:59:59.123Z`, whatever the host's zone.

`log_task(logger, uid)` puts `task=<uid>` first, and `log_replica` puts `replica=<uid>`. Every line ends with the
request id of the HTTP call being served, if any.
"""

import json
import logging
import sys
from collections.abc import MutableMapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Set by the HTTP edge during a request."""


class _Formatter(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        moment = datetime.fromtimestamp(record.created, UTC)
        return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


class _TextFormatter(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        current = request_id.get()
        return f"{line} request={current}" if current and not record.exc_info else line


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
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
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
