"""Checks the Docker Engine: its version and how it is set up."""

import subprocess
from collections.abc import Mapping

from operations.engine_answers import EngineAnswers
from operations.findings import Finding, ok, problem, warning
from operations.versions import is_fixed, parse_version

SAFE_ENGINE = (29, 5, 1)
FIXED_RUNC = ((1, 4, 0), (1, 3, 3), (1, 2, 8))
OLDEST_COMPOSE = (2, 24, 4)
"""The first release that knows `!override`."""
_DAEMON_FILE = "/etc/docker/daemon.json"


def check_engine(engine: EngineAnswers) -> list[Finding]:
    """Every check of the Engine's own answers."""
    return [
        check_version(engine),
        check_runc(engine),
        check_live_restore(engine),
        check_storage(engine),
        check_init(engine),
        check_seccomp(engine),
        check_log_driver(engine),
    ]


def check_version(engine: EngineAnswers) -> Finding:
    """Check for known vulnerabilities of the Engine."""
    name = "Docker Engine"
    found = f"{engine.version['Version']} (API {engine.version['ApiVersion']})"
    if parse_version(engine.version["Version"]) >= SAFE_ENGINE:
        return ok(name, found)
    return warning(
        name,
        f"{found}: older than 29.5.1: its archive calls are vulnerable (CVE-2026-41567)",
        "this server never uses these calls; do not use `docker cp` or other software that does before an update",
    )


def check_runc(engine: EngineAnswers) -> Finding:
    """Check for known escapes from containers."""
    versions = {part["Name"]: part["Version"] for part in engine.version.get("Components") or []}
    found = versions.get("runc", "")
    if not parse_version(found):
        return warning(
            "runc", "the Engine does not report its version", "make sure that it is 1.2.8, 1.3.3, 1.4.0 or newer"
        )
    if is_fixed(parse_version(found), FIXED_RUNC):
        return ok("runc", found)
    return warning(
        "runc",
        f"{found}: without the fixes of CVE-2025-31133, -52565 and -52881, unless the distribution added them",
        "update to 1.2.8, 1.3.3, 1.4.0 or newer: models are foreign code",
    )


def check_live_restore(engine: EngineAnswers) -> Finding:
    """Check that running models survive an update of the Engine."""
    name = "live-restore"
    if engine.info.get("LiveRestoreEnabled"):
        return ok(name, "on")
    if engine.info.get("Swarm", {}).get("LocalNodeState") == "active":
        return ok(name, "off, because Swarm excludes it; a restart of the Engine repeats the running tasks")
    return warning(
        name,
        "off: a restart of the Engine ends running models, and their tasks are repeated",
        f'"live-restore": true in {_DAEMON_FILE}, then `systemctl reload docker`',
    )


def check_storage(engine: EngineAnswers) -> Finding:
    """Check that images share their layers on disk."""
    driver = engine.info.get("Driver", "unknown")
    if driver in ("vfs", "devicemapper", "aufs"):
        return warning("storage driver", f"{driver}: slow, and large on disk", f"overlay2 in {_DAEMON_FILE}")
    return ok("storage driver", driver)


def check_init(engine: EngineAnswers) -> Finding:
    """Check that models get a chance to end by themselves."""
    if engine.info.get("InitCommit", {}).get("ID") != "N/A":
        return ok("docker-init", "present")
    return warning(
        "docker-init", "missing: models that ignore TERM are killed after a grace period", "install tini or docker-init"
    )


def check_seccomp(engine: EngineAnswers) -> Finding:
    """Check that the system calls of models are filtered."""
    options = [option for option in engine.info.get("SecurityOptions") or [] if option.startswith("name=seccomp")]
    if not options:
        return warning(
            "seccomp",
            "the Engine has none: models may make any system call, and reach the hypervisor by AF_VSOCK",
            "use a kernel and an Engine with seccomp: models are foreign code",
        )
    profile = options[0].partition("profile=")[2] or "default"
    if profile in ("default", "builtin"):
        return ok("seccomp", "the server's profile for models")
    if profile == "unconfined":
        return warning(
            "seccomp",
            "the server's profile for models; unconfined for every other container",
            f'remove "seccomp-profile" from {_DAEMON_FILE}',
        )
    return ok("seccomp", f"{profile}, of this host's operator, in place of the server's: sockets are as it has them")


def check_log_driver(engine: EngineAnswers) -> Finding:
    """Check that the log of a run can be read back, with a limit on its size."""
    drivers = engine.info.get("Plugins", {}).get("Log") or []
    found = f"json-file for the server and its models; {engine.info.get('LoggingDriver', 'unknown')} for others"
    if "json-file" in drivers:
        return ok("log driver", found)
    return problem("log driver", "the Engine offers no json-file", "use an Engine with the json-file log driver")


def check_replica_network(variables: Mapping[str, str], engine: EngineAnswers | None) -> list[Finding]:
    """Check that consumers can start the containers of deployments on REPLICA_NETWORK, if it is set."""
    name = variables.get("REPLICA_NETWORK")
    swarm = engine.info.get("Swarm", {}) if engine else {}
    is_worker = swarm.get("LocalNodeState") == "active" and not swarm.get("ControlAvailable")
    # A Swarm worker learns of a network once something on it runs there.
    if engine is None or not name or is_worker:
        return []
    network = next((each for each in engine.networks if each["Name"] == name), None)
    if network is None:
        advice = f"`docker stack deploy` creates it; without Swarm: docker network create --internal {name}"
        return [warning("replica network", f"there is no {name} yet, so no model is kept warm", advice)]
    if network["Driver"] == "overlay" and not network["Attachable"]:
        advice = f"remove it, then: docker network create --driver overlay --internal --attachable {name}"
        return [problem("replica network", f"{name} is not attachable: no consumer can start containers on it", advice)]
    return [ok("replica network", f"{name} ({network['Driver']})")]


def check_compose() -> Finding:
    """Check that a Compose is installed that reads the Compose files."""
    advice = "install the Compose plugin 2.24.4 or newer: https://docs.docker.com/compose/install/"
    for command in (["docker", "compose"], ["docker-compose"]):
        try:
            done = subprocess.run(
                [*command, "version", "--short"], capture_output=True, text=True, check=False, timeout=30
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        version = parse_version(done.stdout)
        if done.returncode == 0 and version:
            found = f"{done.stdout.strip()} (`{' '.join(command)}`)"
            return ok("Compose", found) if version >= OLDEST_COMPOSE else problem("Compose", found, advice)
    return problem("Compose", "neither `docker compose` nor `docker-compose` runs", advice)
