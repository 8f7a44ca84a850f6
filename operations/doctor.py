"""`inference-server doctor`: runs every check of a host and shows the findings."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from kit.settings import environment
from operations.checks.certificate import check_given_certificate
from operations.checks.configuration import check_access, check_secrets, check_variables, read_variables
from operations.checks.engine import check_compose, check_engine, check_replica_network
from operations.checks.gpu import check_gpus
from operations.checks.guard import check_guard
from operations.checks.host import check_clock, check_disks, check_ports
from operations.checks.software import FIXED_LIBRARIES, check_library, check_python
from operations.checks.traefik import check_traefik
from operations.engine_answers import EngineAnswers, EngineSilentError, ask_engine
from operations.findings import Finding, Level, problem

_COLOURS = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "bold red"}


def examine(folder: Path) -> list[Finding]:
    """Check this host for the server whose docker-compose.yaml, .env, secrets and certificate are in `folder`."""
    variables = read_variables(folder / ".env")
    # As the consumer finds it: Compose mounts the socket, standalone follows DOCKER_HOST.
    address = variables.get("DOCKER_SOCKET") or environment().get("DOCKER_HOST") or "/var/run/docker.sock"
    engine, findings = _find_engine(address)
    return [
        *findings,
        check_compose(),
        *check_replica_network(variables, engine),
        *([check_guard(variables, address)] if engine is not None else []),
        *check_gpus(folder, variables),
        *check_ports(variables, engine),
        *check_traefik(variables, engine),
        *check_disks(variables, engine),
        check_clock(engine),
        *check_variables(folder, variables),
        *check_access(variables),
        *check_secrets(folder / "secrets"),
        check_given_certificate(folder / "traefik" / "certs", variables.get("PROXY_DOMAIN") or "localhost"),
        check_python(),
        *(check_library(name) for name in FIXED_LIBRARIES),
    ]


def _find_engine(address: str) -> tuple[EngineAnswers | None, list[Finding]]:
    try:
        engine = ask_engine(address)
    except EngineSilentError as error:
        advice = "start it, or run this as root or as a member of the group docker"
        return None, [problem("Docker Engine", str(error), advice)]
    return engine, check_engine(engine)


def show(findings: Sequence[Finding], *, as_json: bool) -> None:
    """Print the findings, and how many problems and warnings there are."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))  # noqa: T201
        return
    table = Table("check", "", "found", "what to do", expand=False)
    for finding in findings:
        level = Text(finding.level, style=_COLOURS[finding.level])
        table.add_row(finding.check, level, Text(finding.found), Text(finding.advice))
    console = Console()
    console.print(table)
    counts = {level: sum(finding.level is level for finding in findings) for level in Level}
    console.print(f"{counts[Level.PROBLEM]} problems, {counts[Level.WARNING]} warnings")
