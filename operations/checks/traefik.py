"""Checks the version of Traefik, which is the one image of others whose version matters to the server."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from operations.engine_answers import EngineAnswers
from operations.findings import Finding, ok, warning
from operations.versions import Version, parse_version

OLDEST, BROKEN = (3, 6, 9), (3, 7, 7)
BESIDE_BROKEN = (3, 6, 23)
"""The patch of 3.6 that came out with the first broken release."""
_RIGHT = "traefik:v3.6.15 as TRAEFIK_IMAGE; docs/operations/upgrade.md says which versions are right"
_VERSION = "org.opencontainers.image.version"


def check_traefik(variables: Mapping[str, str], engine: EngineAnswers | None) -> list[Finding]:
    """Check each Traefik of this server that runs; if none does, the one that `.env` names."""
    project = variables.get("COMPOSE_PROJECT_NAME") or "inference-server"
    running = list(dict.fromkeys(_running(project, engine))) if engine else []
    named = [variables["TRAEFIK_IMAGE"]] if variables.get("TRAEFIK_IMAGE") else []
    return [judge_traefik(image) for image in running or named]


def judge_traefik(image: str) -> Finding:
    """Judge a version by the name of its image, which may be a digest alone, or what the image says of itself."""
    name = "Traefik"
    version = parse_version(_tag(image))
    if not version:
        return warning(
            name, f"{image} does not tell its version", f"`docker compose exec traefik traefik version`; {_RIGHT}"
        )
    if fault := _fault(version):
        return warning(name, f"{image}: {fault}", _RIGHT)
    return ok(name, f"{image}, of 3.6.9 to 3.7.6")


def _fault(version: Version) -> str | None:
    if len(version) < 3:
        return "a tag of many versions, of which not all are right"
    if version < OLDEST:
        return "stalled TLS handshakes hold its connections for ever (CVE-2026-26999, fixed in 3.6.9)"
    if version >= BROKEN:
        return "gRPC streams that end early hang, from 3.7.7 on"
    if BESIDE_BROKEN <= version < (3, 7):
        return "not tried with this server; it has part of the changes of 3.7.7, with which gRPC streams hang"
    return None


def _running(project: str, engine: EngineAnswers) -> Iterator[str]:
    for container in engine.containers:
        labels = container.get("Labels") or {}
        place = (labels.get("com.docker.compose.project"), labels.get("com.docker.compose.service"))
        if place == (project, "traefik"):
            yield _best_name(str(container.get("Image", "")), labels)
    for service in engine.services:
        if service["Spec"]["Name"].endswith("_traefik"):
            spec = service["Spec"]["TaskTemplate"]["ContainerSpec"]
            yield _best_name(str(spec["Image"]), spec.get("Labels") or {})


def _best_name(image: str, labels: Mapping[str, Any]) -> str:
    # A container has its image's labels, too, and an image that is named by its digest no tag.
    said = labels.get(_VERSION)
    return f"{image.partition(':')[0].partition('@')[0]}:{said}" if said and not parse_version(_tag(image)) else image


def _tag(image: str) -> str:
    """Without the registry, which may have a port or be an address, and without the digest."""
    return re.sub(r"@.*", "", image).rpartition("/")[2].partition(":")[2]
