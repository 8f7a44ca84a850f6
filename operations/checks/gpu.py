"""Checks the GPUs, the toolkit that gives them to containers, and the consumers configured for them."""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from operations.findings import Finding, ok, problem, warning
from operations.gpus import NoGpuError, find_gpus
from operations.versions import parse_version

SAFE_TOOLKIT = (1, 17, 8)
_INSTALL = "install nvidia-container-toolkit 1.17.8 or newer: https://docs.nvidia.com/datacenter/cloud-native/"


def check_gpus(folder: Path, variables: Mapping[str, str]) -> list[Finding]:
    """Check the GPUs, that every configured one is there, and the toolkit."""
    wanted = wanted_gpus(folder, variables)
    wants_gpu = bool(wanted) or "gpu" in variables.get("COMPOSE_PROFILES", "").split(",")
    try:
        gpus = find_gpus()
    except NoGpuError as error:
        if wants_gpu:
            advice = (
                "repair the NVIDIA driver, or set COMPOSE_PROFILES=cpu and remove compose.gpu.yaml from COMPOSE_FILE"
            )
            return [problem("GPUs", str(error), advice)]
        return [ok("GPUs", f"none, and none configured ({error})")]
    missing = sorted(wanted - {gpu.uuid for gpu in gpus})
    if missing:
        advice = "run `inference-server gpus --write compose.gpu.yaml` again"
        found = problem("GPUs", f"configured, but not there: {', '.join(missing)}", advice)
    elif not wants_gpu:
        advice = "`inference-server gpus --write compose.gpu.yaml` and follow its first lines"
        found = warning("GPUs", f"{len(gpus)} found, none configured", advice)
    else:
        found = ok("GPUs", ", ".join(f"{gpu.name} ({gpu.uuid})" for gpu in gpus))
    return [found, check_toolkit()]


def wanted_gpus(folder: Path, variables: Mapping[str, str]) -> set[str]:
    """The GPU UUIDs of every consumer that .env switches on."""
    wanted = {variables["GPU_UUID"]} if variables.get("GPU_UUID") else set()
    for name in filter(None, variables.get("COMPOSE_FILE", "").split(":")):
        path = folder / name
        if path.is_file():
            wanted |= set(re.findall(r"^\s+GPU_UUID: ([\w/-]+)$", path.read_text(), re.MULTILINE))
    return wanted


def check_toolkit() -> Finding:
    """Check for known escapes from GPU containers."""
    name = "NVIDIA container toolkit"
    for command in ("nvidia-ctk", "nvidia-container-cli"):
        try:
            done = subprocess.run([command, "--version"], capture_output=True, text=True, check=False, timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            continue
        return judge_toolkit(done.stdout)
    return problem(name, "missing: containers get no GPU", _INSTALL)


def judge_toolkit(printed: str) -> Finding:
    """The finding about the output of `nvidia-ctk --version` or `nvidia-container-cli --version`."""
    name = "NVIDIA container toolkit"
    version = parse_version(printed)
    text = ".".join(str(part) for part in version)
    if not version:
        return warning(name, "does not report its version", _INSTALL)
    if version >= SAFE_TOOLKIT:
        return ok(name, text)
    return problem(name, f"{text}: models can escape from their container (CVE-2025-23266)", _INSTALL)
