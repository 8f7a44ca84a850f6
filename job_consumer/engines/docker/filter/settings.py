"""The variables of the filter."""

from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from pydantic import Field

from contract.image_names import Runtimes
from kit.settings import Settings


class EngineFilterSettings(Settings):
    """The settings of one filter; read once, in `__main__`."""

    engine_socket: Path = Field(Path("/var/run/docker.sock"), description="The Engine's own socket.")
    filter_socket: Path = Field(Path("/run/engine/docker.sock"), description="The socket that consumers are given.")
    work_dir: Path = Path("/work")
    work_volume: str | None = None
    replica_network: str | None = None
    replica_guard_image: str | None = None
    replica_publish_address: IPv4Address | IPv6Address | None = None
    model_runtimes: Runtimes = ()
    alive_file: Path | None = None
