"""The health checks of a stack under test: the same ones, often until they hold, and then rarely.

Each is a container's process of its own, every few seconds in eight services. On a small machine that runs several
stacks at once they would take a quarter of its time.
"""

import json
from typing import Any

import yaml

RARE_CHECKS = "compose.override.yaml"
"""What Compose reads beside docker-compose.yaml by itself, unless COMPOSE_FILE says otherwise."""
_PAUSE_S = 30
# A restart of the container empties the folder, and so makes it impatient again. A check that is told to end leaves
# nothing that holds its output open.
_PAUSED = f"""
[ ! -e /dev/shm/healthy ] || sleep {_PAUSE_S} >/dev/null 2>&1
if "$$@"; then touch /dev/shm/healthy; else rm -f /dev/shm/healthy; exit 1; fi
"""


def rare_health_checks(compose_file: str) -> str:
    """A Compose file that changes nothing else of this one."""
    services = yaml.safe_load(compose_file)["services"]
    checks = {name: service["healthcheck"] for name, service in services.items() if "healthcheck" in service}
    rare = {name: {"healthcheck": _paused(check["test"])} for name, check in checks.items() if "test" in check}
    return json.dumps({"services": rare}, indent=1)


def _paused(test: list[str]) -> dict[str, Any]:
    kind, *command = test
    if kind == "CMD-SHELL":
        command = ["sh", "-c", *command]
    return {
        "test": ["CMD", "sh", "-c", _PAUSED, "check", *command],
        "interval": "1s",
        "timeout": f"{_PAUSE_S * 4}s",
        # As long as they have at their own interval, on a machine that starts several stacks at once.
        "retries": 120,
    }
