"""The words for how a run is reached, and what it reaches."""

import logging
from dataclasses import dataclass
from ipaddress import ip_address

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Publication:
    """A TCP port of the run to publish at an address of the engine's machine, on whichever port is free there."""

    address: str
    port: int


@dataclass(frozen=True)
class Network:
    """A network that runs can be put on."""

    is_internal: bool
    """Whether it has no way outside; ports of a run on it cannot be published then."""


def is_address(host: str) -> bool:
    """Whether it is an IP address, and not a name."""
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class NetworkAccess:
    """The only network that a run is on, and what passes between the two."""

    name: str
    port: int
    """The TCP port at which others on the network call the run."""
    gateway: str = ""
    """The `host:port` that the run may call; empty is none."""
    is_guarded: bool = True
    """Whether nothing else passes. Without, the run reaches all that is on the network, and is reached by all."""

    @property
    def has_port_of_gateway(self) -> bool:
        """Whether others that may call the gateway could call the run instead: by a name, only the port is known."""
        host, _, port = self.gateway.rpartition(":")
        return bool(host) and not is_address(host) and port == str(self.port)


class Guarding:
    """Whether this consumer's engine can guard runs: it can, until it could not."""

    def __init__(self) -> None:
        self.works = True

    def note_failure(self, why: str) -> None:
        """From now on replicas have no guard, and none that runs tasks is hosted."""
        self.works = False
        logger.error(
            "replicas cannot be guarded here: they reach each other and all else that is on their network, so none "
            "that runs tasks is hosted. Repair that, or correct REPLICA_GUARD_IMAGE, and start this consumer again: %s",
            why,
        )
