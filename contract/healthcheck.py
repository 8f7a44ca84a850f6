"""`python -m contract.healthcheck TARGET`: what container health checks call. Standard library only, so it starts fast.

TARGET is a URL that must answer 200, or `file:/path` of a file that a living process touches.
"""

import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

_TIMEOUT_S = 4
MAX_AGE_S = 90
"""Consumers touch their file at least every 15 s."""


def main() -> int:
    """0 for healthy, 1 with a line that says why not."""
    target = sys.argv[1]
    if target.startswith("file:"):
        return _check_file(Path(target.removeprefix("file:")))
    try:
        # Not the environment's proxies: the target is this container itself.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(target, timeout=_TIMEOUT_S):
            return 0
    except urllib.error.HTTPError as error:
        print(f"{target} answers {error.code}: {error.read(500).decode(errors='replace')}")  # noqa: T201
    except OSError as error:
        print(f"{target} does not answer: {error}")  # noqa: T201
    return 1


def _check_file(path: Path) -> int:
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        print(f"{path} is not there: the consumer has not begun, or the private API refuses it; its log says which")  # noqa: T201
        return 1
    if age > MAX_AGE_S:
        print(f"{path} was last touched {age:.0f} s ago")  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
