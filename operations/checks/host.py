"""Checks the host below the Engine: ports, disks, the clock."""

import ctypes
import re
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from operations.engine_answers import EngineAnswers
from operations.findings import Finding, ok, problem, warning

GIB = 1024**3
WARN_BELOW_BYTES = 20 * GIB
PROBLEM_BELOW_BYTES = 2 * GIB
_MAX_DRIFT_S = 2.0
_TIME_ERROR = 5
_LISTEN = "0A"
_SOCKETS = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))


def check_ports(variables: Mapping[str, str], engine: EngineAnswers | None) -> list[Finding]:
    """Check that Traefik has its ports, or can get them."""
    busy = {port for path in _SOCKETS if path.exists() for port in listening_ports(path.read_text())}
    wanted = (variables.get("HTTP_PORT") or "80", variables.get("HTTPS_PORT") or "443")
    project = variables.get("COMPOSE_PROJECT_NAME") or "inference-server"
    return [check_port(int(port), project, engine, busy) for port in wanted if port.isdecimal()]


def check_port(port: int, project: str, engine: EngineAnswers | None, busy: set[int]) -> Finding:
    """Check one port, by what the Engine has published and what is listening."""
    name = f"port {port}"
    advice = "stop it, or set HTTP_PORT and HTTPS_PORT in .env"
    for owner, is_ours in publishers(port, project, engine) if engine else []:
        return ok(name, f"held by our {owner}") if is_ours else problem(name, f"held by the container {owner}", advice)
    return problem(name, "another program listens on it", advice) if port in busy else ok(name, "free")


def publishers(port: int, project: str, engine: EngineAnswers) -> list[tuple[str, bool]]:
    """Every container or Swarm service that publishes a port: its name, and whether it is this server's Traefik."""
    found = []
    for container in engine.containers:
        if any(published.get("PublicPort") == port for published in container.get("Ports") or []):
            labels = container.get("Labels") or {}
            place = (labels.get("com.docker.compose.project"), labels.get("com.docker.compose.service"))
            found.append((container["Names"][0].lstrip("/"), place == (project, "traefik")))
    for service in engine.services:
        if any(published.get("PublishedPort") == port for published in service.get("Endpoint", {}).get("Ports") or []):
            name = service["Spec"]["Name"]
            found.append((name, name.endswith("_traefik")))
    return found


def listening_ports(table: str) -> set[int]:
    """The TCP ports that something listens on, from the text of /proc/net/tcp or tcp6."""
    rows = re.findall(r"^\s*\d+: [0-9A-F]+:([0-9A-F]{4}) \S+ ([0-9A-F]{2}) ", table, re.MULTILINE)
    return {int(port, 16) for port, state in rows if state == _LISTEN}


def check_disks(variables: Mapping[str, str], engine: EngineAnswers | None) -> list[Finding]:
    """Check the disks of images, runs and archives."""
    places: dict[Path, str] = {}
    if engine is not None:
        places[Path(engine.info.get("DockerRootDir") or "/var/lib/docker")] = "disk of the Engine"
        data = f"{variables.get('COMPOSE_PROJECT_NAME') or 'inference-server'}_data"
        for volume in engine.volumes:
            if volume["Name"] == data:
                places[Path(volume["Mountpoint"])] = "disk of the data"
    for name in ("DATA_DIR", "STORAGE_DIR"):
        if variables.get(name):
            places[Path(variables[name])] = "disk of the data"
    return [check_disk(name, path) for path, name in places.items()]


def check_disk(name: str, path: Path) -> Finding:
    """Check the free space where a folder is or would be."""
    for folder in (path, *path.parents):
        try:
            return judge_space(name, path, shutil.disk_usage(folder).free)
        except OSError:
            # Missing or closed to this user: its parent is probably on the same disk.
            continue
    return warning(name, f"{path} cannot be read", "make sure that it has room")


def judge_space(name: str, path: Path, free_bytes: int) -> Finding:
    """The finding about this much free space."""
    found = f"{free_bytes / GIB:.1f} GiB free at {path}"
    if free_bytes >= WARN_BELOW_BYTES:
        return ok(name, found)
    advice = "make room: `docker image prune`, a shorter KEEP_FINISHED_FOR, a larger disk"
    return (problem if free_bytes < PROBLEM_BELOW_BYTES else warning)(name, found, advice)


def check_clock(engine: EngineAnswers | None) -> Finding:
    """Check that the clock of this host can be trusted."""
    if engine is not None:
        drift_s = abs((parse_instant(engine.info["SystemTime"]) - datetime.now(UTC)).total_seconds())
        if drift_s > _MAX_DRIFT_S:
            return warning("clock", f"the Engine's differs by {drift_s:.0f} s", "synchronise both, with chrony")
    synchronised = kernel_is_synchronised()
    if synchronised is False:
        advice = "install chrony or systemd-timesyncd: certificates and logs go by this clock"
        return warning("clock", "the kernel reports that nothing synchronises it", advice)
    return ok("clock", "synchronised" if synchronised else "the kernel does not report whether it is synchronised")


def parse_instant(text: str) -> datetime:
    """Parse a time of the Engine, which has nanoseconds where Python has microseconds."""
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))


def kernel_is_synchronised() -> bool | None:
    """The kernel's own flag, which `timedatectl` shows too, or None if it cannot be read."""
    try:
        # With `modes` 0 the call only reads. The structure is smaller than this on every platform.
        state: int = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))
    except (AttributeError, OSError):
        return None
    return None if state < 0 else state != _TIME_ERROR
