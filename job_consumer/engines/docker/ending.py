"""Whether a container ended by itself, or because its Engine, its host or somebody ended it.

An exit code does not tell: a program that is stopped may end with any, 0 included. Two things do. The Engine's events,
of which it keeps the latest 256 since its own start, show whether it saw the end, and a signal sent through it before.
And what was true of the Engine when the container was made, kept in a label, shows whether it was started anew.
"""

import json
from collections.abc import Mapping
from typing import Any

import docker
from docker.errors import NotFound

from job_consumer.boot import boot_id
from job_consumer.engines import LABEL, ExitState, Interruption, RunKey, RunVanished
from job_consumer.engines.docker.errors import is_read_timeout

START_LABEL = f"{LABEL}.engine-start"
"""On a container: `engine_start` when it was made. Containers of earlier releases have none."""
HISTORY_LIMIT_S = 5.0
"""The Engine sends the events it keeps at once. Only one that saw no end stays silent for so long."""
SIGNALLED = 128
"""Exit codes above it are those of signals, and 255, which the Engine gives what it finds dead when it starts."""


def engine_start(client: docker.APIClient) -> str:
    """What differs after a restart of the Engine that containers did not survive, and after one of the host.

    The Engine makes its default bridge anew whenever it starts and finds no container running: where live-restore
    kept containers running, nothing changes.
    """
    try:
        bridge = str(client.inspect_network("bridge")["Created"])
    except NotFound:
        bridge = "no bridge"
    return f"{bridge} {boot_id()}"


def describe_run(client: docker.APIClient, key: RunKey) -> dict[str, Any]:
    """The container of a run as the Engine describes it. Raises `RunVanished`."""
    try:
        container: dict[str, Any] = client.inspect_container(key.name)
    except NotFound as error:
        raise RunVanished(key.name) from error
    return container


def exit_state(client: docker.APIClient, container: Mapping[str, Any]) -> ExitState:
    """How a container ended, as the Engine describes it.

    `client` must have made its connection after the end: while an Engine stops, it still answers on old ones.
    """
    state = container["State"]
    return ExitState(
        exit_code=state["ExitCode"],
        out_of_memory=state["OOMKilled"],
        interruption=None if state["OOMKilled"] else _interruption(client, container),
    )


def _interruption(client: docker.APIClient, container: Mapping[str, Any]) -> Interruption | None:
    history = _history(client, container["Id"])
    started_at = container["Config"]["Labels"].get(START_LABEL)
    is_other_engine = started_at is not None and started_at != engine_start(client)
    if "die" in history:
        # A restarted Engine ends what it finds running, unless it has live-restore.
        if "kill" not in history:
            return None
        return Interruption.ENGINE if is_other_engine else Interruption.OUTSIDE
    if is_other_engine:
        return Interruption.ENGINE
    # Its end is no longer among the events.
    return Interruption.OUTSIDE if container["State"]["ExitCode"] > SIGNALLED else None


def _history(client: docker.APIClient, container: str) -> list[str]:
    """The signals sent to a container, and its end, as far as the Engine remembers; ends with `die` if it does."""
    filters = json.dumps({"container": [container], "event": ["kill", "die"]})
    found: list[str] = []
    response = client.get(
        f"{client.base_url}/v{client.api_version}/events",
        params={"since": "1", "filters": filters},
        stream=True,
        timeout=HISTORY_LIMIT_S,
    )
    try:
        response.raise_for_status()
        for line in response.iter_lines():
            found.append(json.loads(line)["Action"])
            if found[-1] == "die":
                break
    except OSError as error:
        if not is_read_timeout(error):
            raise
    finally:
        response.close()
    return found
