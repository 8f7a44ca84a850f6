"""Which calls of the Engine's API a consumer may make. What it may create is in `creation`. Pure: no I/O.

Each call is written here with its parameters. What is not written here is refused: also calls that would do no harm,
and those of later versions of the API.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote, urlencode

from job_consumer.engines import LABEL

RUN = r"is-[A-Za-z0-9][A-Za-z0-9_.-]{0,250}"
"""The name of a run's container, as `RunKey` makes it. An id is no name: it would reach every container."""
VOLUME = rf"{RUN}-[0-9a-f]{{8}}"
_ID = r"[0-9a-f]{64}"
_IMAGE = r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,1000}"
_OFF = frozenset({"", "0", "false", "False"})
_VERSION = re.compile(r"/v1\.[4-9][0-9](?=/)")
"""Of the API; 1.40 is that of Docker 19.03. Older ones read more from a call: 1.23 a configuration at each start."""


class Refused(Exception):
    """A call that is not let through; the text says why."""


@dataclass(frozen=True)
class Call:
    """A call that is let through."""

    target: str
    """Path and query, put together anew: nothing of it can be read in two ways."""
    creates: bool = False
    """Its body is a container, which `creation` judges."""
    starts: str | None = None
    """The container that it starts."""
    is_for_a_registry: bool = False
    """It carries a login for one."""


@dataclass(frozen=True)
class _Rule:
    method: str
    path: str
    parameters: frozenset[str] = frozenset()
    check: Callable[[Mapping[str, str]], None] | None = None


def _is_ours(parameters: Mapping[str, str]) -> None:
    """Otherwise a list would show what others run."""
    labels = _filters(parameters).get("label")
    if not isinstance(labels, list) or not any(str(label).startswith(f"{LABEL}.") for label in labels):
        raise Refused("a list is of what has a label of ours")


def _of_one_container(parameters: Mapping[str, str]) -> None:
    """By its whole id, which its inspection tells: names of others can be guessed."""
    containers = _filters(parameters).get("container")
    if not isinstance(containers, list) or len(containers) != 1 or not re.fullmatch(_ID, str(containers[0])):
        raise Refused("events are those of one container, by its id")


def _named(parameters: Mapping[str, str]) -> None:
    if not re.fullmatch(RUN, parameters.get("name", "")):
        raise Refused("a container has the name of a run")


def _unforced(parameters: Mapping[str, str]) -> None:
    for name in ("force", "noprune"):
        if parameters.get(name, "") not in _OFF:
            raise Refused(f"{name} is not let through")


def _filters(parameters: Mapping[str, str]) -> Mapping[str, object]:
    try:
        found = json.loads(parameters.get("filters", ""))
    except ValueError as error:
        raise Refused("filters are missing, or not JSON") from error
    return found if isinstance(found, dict) else {}


_CREATE = "/containers/create"
_RULES = (
    _Rule("GET", "/_ping"),
    _Rule("GET", "/version"),
    _Rule("GET", "/info"),
    # What nameless volumes take; it names what else the Engine keeps, and shows nothing of it.
    _Rule("GET", "/system/df"),
    _Rule("GET", "/events", frozenset({"since", "filters"}), _of_one_container),
    _Rule("GET", "/containers/json", frozenset({"all", "size", "limit", "trunc_cmd", "filters"}), _is_ours),
    _Rule("POST", _CREATE, frozenset({"name"}), _named),
    _Rule("GET", rf"/containers/{RUN}/json"),
    _Rule("POST", rf"/containers/{RUN}/start"),
    _Rule("POST", rf"/containers/{RUN}/stop", frozenset({"t"})),
    _Rule("POST", rf"/containers/{RUN}/wait", frozenset({"condition"})),
    _Rule("GET", rf"/containers/{RUN}/logs", frozenset({"stdout", "stderr", "follow", "tail", "timestamps"})),
    # To read: without `stdin` nothing of what the caller sends is passed on.
    _Rule("POST", rf"/containers/{RUN}/attach", frozenset({"stdout", "stderr", "stream"})),
    _Rule("DELETE", rf"/containers/{RUN}", frozenset({"v", "force", "link"})),
    _Rule("GET", rf"/images/{_IMAGE}/json"),
    _Rule("DELETE", rf"/images/{_IMAGE}", frozenset({"force", "noprune"}), _unforced),
    # A pull. `fromSrc` would import a file.
    _Rule("POST", "/images/create", frozenset({"fromImage", "tag"})),
    _Rule("GET", rf"/distribution/{_IMAGE}/json"),
    _Rule("GET", "/volumes", frozenset({"filters"}), _is_ours),
    _Rule("DELETE", rf"/volumes/{VOLUME}", frozenset({"force"}), _unforced),
)


class CallRules:
    """The calls of consumers with this work volume and these networks."""

    def __init__(self, *, work_volume: str | None, network: str | None) -> None:
        # The default bridge shows when the Engine was started: `engines.docker.ending`.
        networks = [re.escape(name) for name in ("bridge", network) if name]
        named = [_Rule("GET", f"/networks/({'|'.join(networks)})")]
        if work_volume:
            named.append(_Rule("GET", f"/volumes/{re.escape(work_volume)}"))
        self._rules = (*_RULES, *named)

    def judge(self, method: str, target: str) -> Call:
        """The call as it is passed on. Raises `Refused`."""
        raw_path, _, query = target.partition("?")
        version = _VERSION.match(raw_path)
        prefix = version[0] if version else ""
        path = unquote(raw_path.removeprefix(prefix))
        if ".." in path or "//" in path:
            raise Refused("the path leads elsewhere")
        rule = next((each for each in self._rules if method == each.method and re.fullmatch(each.path, path)), None)
        if rule is None:
            raise Refused("consumers have no need of this call")
        parameters = _parse(query)
        if unknown := parameters.keys() - rule.parameters:
            raise Refused(f"the parameter {min(unknown)} is not let through")
        if rule.check is not None:
            rule.check(parameters)
        passed = f"{prefix}{quote(path, safe='/:@')}" + (f"?{urlencode(parameters)}" if parameters else "")
        return Call(
            passed,
            creates=rule.path == _CREATE,
            starts=path.split("/")[2] if path.endswith("/start") else None,
            is_for_a_registry=rule.path == "/images/create" or path.startswith("/distribution/"),
        )


def _parse(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), errors="strict")
    except ValueError as error:
        raise Refused("the query cannot be read") from error
    parameters = dict(pairs)
    if len(parameters) != len(pairs):
        raise Refused("a parameter is given twice")
    return parameters
