"""What this machine is, what it has to do besides, and what of a benchmark's needs it has."""

import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from tests.engine_client import engine_client
from tests.services import BROKER_URL, DATABASE_URL, docker_problem, listens


def load() -> float:
    """How many processes ran or waited for a core or a disk, on average of the last minute."""
    return os.getloadavg()[0]


def describe() -> dict[str, str]:
    """What figures depend on."""
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1024**3:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "inference-server": _version(),
        "postgresql": _database_version(),
        "docker": _engine_version(),
    }


def lacks(needs: tuple[str, ...]) -> str:
    """What of its needs this machine has not; empty if it has all."""
    return "; ".join(problem for need in needs if (problem := FACILITIES[need]()))


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _version() -> str:
    commit = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=False)
    released = metadata.version("inference-server")
    return f"{released}, commit {commit.stdout.strip()}" if commit.returncode == 0 else released


def _database_version() -> str:
    if not listens(DATABASE_URL, 5432):
        return ""
    engine = create_engine(DATABASE_URL, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            return str(connection.execute(text("SHOW server_version")).scalar_one()).partition(" ")[0]
    except SQLAlchemyError:
        return ""


def _engine_version() -> str:
    if docker_problem():
        return ""
    client = engine_client()
    try:
        return str(client.version()["Version"])
    finally:
        client.close()


def _compose_problem() -> str:
    if shutil.which("docker") is None:
        return "no Docker Compose"
    said = subprocess.run(["docker", "compose", "version"], capture_output=True, text=True, check=False)
    return "" if said.returncode == 0 else "no Docker Compose"


FACILITIES: dict[str, Callable[[], str]] = {
    "docker": lambda: docker_problem() or "",
    "compose": _compose_problem,
    "postgres": lambda: "" if listens(DATABASE_URL, 5432) else "no PostgreSQL listens; set TEST_DATABASE_URL",
    "rabbitmq": lambda: "" if listens(BROKER_URL, 5672) else "no RabbitMQ listens; set TEST_BROKER_URL",
}
"""By name, what says why this machine has not got it, or nothing."""
