"""Checks whether models that are kept warm can be guarded: with a guard of its own, which it starts and removes."""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from job_consumer.engines import EngineUnavailable
from job_consumer.engines.docker.engine import DockerEngine
from operations.findings import Finding, ok, warning

SERVERS_IMAGE = "inference-server:0.1.0"
"""The image that the Compose file takes unless INFERENCE_SERVER_IMAGE names another."""
_NAME = "guards of warm models"


def check_guard(variables: Mapping[str, str], address: str) -> Finding:
    """Try a guard on the Engine at this address: of the server's image or, where that is not, of this host's `nft`."""
    image = variables.get("REPLICA_GUARD_IMAGE") or variables.get("INFERENCE_SERVER_IMAGE") or SERVERS_IMAGE
    guard_image: str | None = None
    base_url = address if "://" in address else f"unix://{address}"
    try:
        with closing(DockerEngine(work_dir=Path("/"), work_volume=None, base_url=base_url)) as engine:
            guard_image = image if engine.find_image(image) is not None else None
        engine = DockerEngine(work_dir=Path("/"), work_volume=None, base_url=base_url, guard_image=guard_image)
        with closing(engine):
            # The kernel is the same whatever the network: on this one there is nobody.
            why = engine.why_unguarded("none")
    except EngineUnavailable as error:
        why = str(error)
    if why is None:
        return ok(_NAME, f"work with {guard_image or 'the nft of this host'}")
    return warning(
        _NAME,
        f"{why}. Warm models reach each other and what else is on their network, so none that runs tasks is hosted",
        "use a kernel with nf_tables, and the server's image or the package nftables",
    )
