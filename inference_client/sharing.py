"""Whether an image that was built here is where the server's tasks run. No I/O."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from inference_client.overview_schemas import ConsumerView
from inference_client.statuses import ConsumerStatus, Kind

_HERE = re.compile(r"https?://(localhost|127\.[0-9.]+|\[::1\])(:[0-9]+)?(/|$)")


@dataclass(frozen=True)
class Sharing:
    """What is known of the Engines that tasks run on."""

    is_shared: bool
    """Whether every one of them is this machine's."""
    detail: str
    """How that is known, or why it is not so."""
    lacking: tuple[str, ...] = ()
    """The hosts that lack the image, as far as they are known."""


def is_here(server: str) -> bool:
    """Whether a server's URL is one of this machine."""
    return _HERE.match(server) is not None


def judge(consumers: Sequence[ConsumerView] | None, *, server: str, engine: str, kind: Kind) -> Sharing:
    """Judge by the consumers, None if the caller may not see them. `engine` is the name of this Engine's machine.

    A consumer reports the name of its Engine's machine: two machines of one name are taken for the same.
    """
    if consumers is None:
        if is_here(server):
            return Sharing(True, f"{server} is on this machine, so its consumer is taken to use this Docker Engine")
        return Sharing(False, f"without a key of {server} its consumers cannot be seen (infer login)")
    able = [each for each in consumers if kind in each.kinds and each.status is not ConsumerStatus.SILENT]
    if not able:
        return Sharing(False, f"no consumer for {kind} tasks is connected to {server}")
    silent_about_it = sorted(each.name for each in able if each.host is None)
    lacking = tuple(sorted({each.host for each in able if each.host not in (None, engine)}, key=str))
    if silent_about_it:
        return Sharing(False, f"consumers that do not say on which host: {', '.join(silent_about_it)}", _names(lacking))
    if lacking:
        return Sharing(
            False, f"this Docker Engine is {engine}, and tasks run on {', '.join(_names(lacking))}", _names(lacking)
        )
    return Sharing(True, f"every consumer for {kind} tasks uses the Docker Engine of {engine}, as this machine does")


def _names(hosts: Sequence[str | None]) -> tuple[str, ...]:
    return tuple(host for host in hosts if host is not None)
