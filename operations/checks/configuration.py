"""Checks what was configured: .env and the secrets."""

import re
from collections.abc import Mapping
from pathlib import Path

from grpc_gateway.settings import GatewaySettings
from job_consumer.settings import JobConsumerSettings
from kit.settings import Settings, SettingsError
from operations.findings import Finding, ok, problem, warning
from operations.secrets import find_faults
from private_api.settings import PrivateApiSettings
from public_api.settings import PublicApiSettings

SERVICES: tuple[type[Settings], ...] = (PrivateApiSettings, PublicApiSettings, GatewaySettings, JobConsumerSettings)
SECRET_FILES = ("service_token", "postgres_password", "rabbit_password", "rabbitmq.conf")
# Stands in for the secrets that Compose passes as files, which have a check of their own.
_STAND_IN = "0123456789abcdef"


def read_variables(path: Path) -> dict[str, str]:
    """The variables of a .env file as Compose reads them, without interpolation; empty if there is no file."""
    variables = {}
    for line in path.read_text().splitlines() if path.is_file() else []:
        match = re.fullmatch(r"\s*(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(.*?)\s*", line)
        if match:
            quoted = re.fullmatch(r"(['\"])(.*?)\1(?:\s+#.*)?", match[2])
            variables[match[1]] = quoted[2] if quoted else re.sub(r"(^|\s+)#.*$", "", match[2])
    return variables


def check_variables(folder: Path, variables: Mapping[str, str]) -> list[Finding]:
    """Check that the services accept the variables, and that each variable is known."""
    if not (folder / ".env").is_file():
        return [ok(".env", f"there is no {folder / '.env'}: every variable has its default")]
    faults = variable_faults(variables)
    findings = [problem(".env", fault, "correct it in .env; .env.example explains each variable") for fault in faults]
    example = folder / ".env.example"
    known = set(re.findall(r"^#?([A-Z][A-Z0-9_]+)=", example.read_text(), re.MULTILINE)) if example.is_file() else set()
    unknown = sorted(set(variables) - known) if known else []
    if unknown:
        findings.append(warning(".env", f"nobody reads {', '.join(unknown)}", "see .env.example for the names"))
    return findings or [ok(".env", f"{sum(map(bool, variables.values()))} variables set, all of them accepted")]


def check_access(variables: Mapping[str, str]) -> list[Finding]:
    """Say who gets in, where that is everybody."""
    door = PublicApiSettings.load({"SERVICE_TOKEN": _STAND_IN, **_switches(variables)})
    findings = []
    if not door.require_api_key:
        said = "no key is asked for: whoever reaches the server may submit tasks, and read those that need no key"
        findings.append(warning("access", said, "REQUIRE_API_KEY=1 in .env requires keys, where the network does not"))
    if door.allow_public_post_model:
        said = f"{'every key' if door.require_api_key else 'everybody'} may register models, programs that run here"
        findings.append(warning("access", said, "empty ALLOW_PUBLIC_POST_MODEL; keys with the scope models may then"))
    return findings or [ok("access", "every call needs a key, and registering models one for that")]


def _switches(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: variables.get(name, "") for name in ("REQUIRE_API_KEY", "ALLOW_PUBLIC_POST_MODEL")}


def variable_faults(variables: Mapping[str, str]) -> list[str]:
    """The faults that the services' own settings report, each once."""
    faults: dict[str, None] = {}
    for settings in SERVICES:
        secrets = dict.fromkeys(("SERVICE_TOKEN", "POSTGRES_PASSWORD", "RABBIT_PASSWORD"), _STAND_IN)
        if settings is JobConsumerSettings and variables.get("CONSUMER_KEY"):
            del secrets["SERVICE_TOKEN"]
        try:
            settings.load({**secrets, **{name: value for name, value in variables.items() if value}})
        except SettingsError as error:
            faults.update(dict.fromkeys(str(error).splitlines()))
    return list(faults)


def check_secrets(folder: Path) -> list[Finding]:
    """Check the files by which the services know each other. Compose makes those that are missing."""
    given = [name for name in SECRET_FILES if (folder / name).exists()]
    if not given:
        return [ok("secrets", f"none in {folder}: Compose makes its own")]
    try:
        faults = find_faults(folder)
    except PermissionError as error:
        return [warning("secrets", f"you may not read {error.filename}", "run this as its owner")]
    if faults:
        return [
            problem("secrets", fault, "remove the file; Compose makes another, `make secrets` does for others")
            for fault in faults
        ]
    if folder.stat().st_mode & 0o077:
        return [warning("secrets", f"other users of this host can enter {folder}", f"chmod 700 {folder}")]
    return [ok("secrets", f"{len(given)} files in {folder}")]
