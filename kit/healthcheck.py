"""`python -m kit.healthcheck TARGET`: the health check of every container.

It runs every few seconds on every host, so it imports as little as possible.

TARGET is a URL that must answer 200, or `file:/path` for a file that a live process touches.
"""

import os
import sys
import time

_TIMEOUT_S = 4
MAX_AGE_S = 90
"""Consumers touch their file at least every 15 s."""


def main() -> int:
    """Returns 0 for healthy, or prints why not and returns 1."""
    target = sys.argv[1]
    if target.startswith("file:"):
        return _check_file(target.removeprefix("file:"))
    return _check_url(target)


def _check_url(url: str) -> int:
    # These imports are most of the cost of a check, and files do not need them. `urllib.request` costs twice as much.
    from http.client import HTTPConnection, HTTPException
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", parts.path)
        answer = connection.getresponse()
        if answer.status == 200:
            return 0
        print(f"{url} answers {answer.status}: {answer.read(500).decode(errors='replace')}")  # noqa: T201
    except (OSError, HTTPException) as error:
        print(f"{url} does not answer: {error}")  # noqa: T201
    finally:
        connection.close()
    return 1


def _check_file(path: str) -> int:
    try:
        age = time.time() - os.stat(path).st_mtime  # noqa: PTH116 - pathlib takes longer to import than all the rest
    except FileNotFoundError:
        print(f"{path} does not exist: the consumer has not started, is sick, or is refused; its log says more")  # noqa: T201
        return 1
    if age > MAX_AGE_S:
        print(f"{path} was last touched {age:.0f} s ago")  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
