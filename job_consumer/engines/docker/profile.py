"""The container of a run as the Engine's create call takes it: the hardened profile. Pure: no I/O."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.schemas import Isolation
from job_consumer.engines import LABEL, ContainerSpec, Mount, RunKey, RunKind, RunState

ENDED = ("exited", "dead")
"""The Engine's words for a container that has run."""
SERVER_LABEL = f"{LABEL}.server"
CDI_GPU = "nvidia.com/gpu="
"""What the Container Device Interface calls a GPU, before its UUID."""
NO_NAMES = ["127.0.0.1"]
"""A container's own loopback as its resolver, where nothing answers: otherwise the Engine asks its machine's resolvers
about foreign names, which leads out of networks that have no other way outside (CVE-2024-29018)."""
OPEN_FILES = 16_384
"""At most what the Engine itself may open: an Engine without CAP_SYS_RESOURCE cannot raise it."""


@dataclass(frozen=True)
class EngineHost:
    """What a container's configuration depends on at the Engine's machine."""

    work_dir: Path
    """The consumer's work directory."""
    work_root: Path
    """The same directory as the Engine sees it."""
    cpus: int
    has_init: bool
    """Whether the Engine has the small init that forwards signals and reaps."""
    storage_dir: Path | None = None
    """Where it keeps what containers write, if this process sees that."""
    gpu_by_cdi: bool = False
    """Whether it hands out GPUs by the Container Device Interface, and not by NVIDIA's runtime."""
    seccomp: str | None = None
    """The profile of system calls for its containers, as JSON; None leaves the Engine's."""


def container_config(spec: ContainerSpec, host: EngineHost) -> dict[str, Any]:
    """The body of `POST /containers/create`. The Engine makes the volumes along with the container.

    A run with a guard has the guard's network, where its ports are published.
    """
    access = spec.network
    guard = guard_name(spec.key) if access and access.is_guarded else None
    ports = {} if guard else published(spec)
    return {
        "Image": spec.image,
        "User": spec.user or "",
        "Env": [f"{name}={value}" for name, value in _environment(spec, host).items()],
        "Labels": _labels(spec),
        "Healthcheck": {"Test": ["NONE"]},
        "ExposedPorts": {port: {} for port in ports},
        "HostConfig": {
            "NetworkMode": f"container:{guard}" if guard else access.name if access else "none",
            "PortBindings": ports,
            "Dns": NO_NAMES if access and not guard else [],
            "IpcMode": "private",
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges", *([f"seccomp={host.seccomp}"] if host.seccomp else [])],
            "Privileged": False,
            "ReadonlyRootfs": spec.isolation == Isolation.STRICT,
            "Tmpfs": {"/tmp": _temporary_options(spec)},  # noqa: S108
            "Mounts": [_mount(mount, spec, host) for mount in spec.mounts],
            "Memory": spec.memory_limit_bytes,
            # The sum of memory and swap: equal to memory means no swap.
            "MemorySwap": spec.memory_limit_bytes,
            # The Engine refuses more than the machine has.
            "NanoCpus": int(min(spec.cpu_limit, host.cpus) * 1e9) if spec.cpu_limit else 0,
            "PidsLimit": spec.pids_limit,
            "ShmSize": spec.shared_memory_bytes,
            "Ulimits": [_ulimit("nofile", OPEN_FILES), _ulimit("core", 0)],
            "LogConfig": {
                "Type": "json-file",
                "Config": {"max-size": str(spec.log_limit_bytes), "max-file": "1"},
            },
            # As process 1 a program ignores TERM unless it handles it.
            "Init": host.has_init,
            "RestartPolicy": {"Name": "no"},
            # Kept after it has ended, for a consumer that is down at that moment.
            "AutoRemove": False,
            "DeviceRequests": _gpu_request(spec.gpu_uuid, host),
            **({"Runtime": spec.runtime} if spec.runtime else {}),
        },
    }


def run_labels(key: RunKey) -> dict[str, str]:
    """The labels on everything that belongs to one run."""
    server = {SERVER_LABEL: key.server} if key.server else {}
    return server | {f"{LABEL}.{key.kind}": key.uid, f"{LABEL}.fence": str(key.fence)}


def run_key(labels: Mapping[str, str]) -> RunKey | None:
    """The run that these labels name, or None if they name no run."""
    fence = labels.get(f"{LABEL}.fence", "")
    for kind in RunKind:
        if (uid := labels.get(f"{LABEL}.{kind}")) and fence.isdecimal():
            return RunKey(uid, int(fence), kind, labels.get(SERVER_LABEL, ""))
    return None


def consumer_label(consumer: str) -> tuple[str, str]:
    """The label by which the runs of one consumer are found."""
    return f"{LABEL}.consumer", consumer


def run_state(word: str) -> RunState:
    """The run state that one of the Engine's words means."""
    if word == "created":
        return RunState.CREATED
    return RunState.EXITED if word in (*ENDED, "removing") else RunState.RUNNING


def reached_at(container: Mapping[str, Any], port: int) -> str | None:
    """The `host:port` of one port of a container as the Engine describes it; None if it has none right now."""
    settings, name = container["NetworkSettings"], f"{port}/tcp"
    if name in (container["HostConfig"]["PortBindings"] or {}):
        bound = next(iter(settings["Ports"].get(name) or []), None)
        return bound and _host_port(bound["HostIp"], bound["HostPort"])
    networks = settings["Networks"].values()
    return next((_host_port(network["IPAddress"], port) for network in networks if network["IPAddress"]), None)


def _host_port(host: str, port: int | str) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def guard_name(key: RunKey) -> str:
    """The name of the container that guards the run's network."""
    return f"{key.name}-guard"


def published(spec: ContainerSpec) -> dict[str, list[dict[str, str]]]:
    """The ports that the Engine publishes for the run, as it takes them."""
    if spec.publication is None:
        return {}
    # With an empty port the Engine takes a free one.
    return {f"{spec.publication.port}/tcp": [{"HostIp": spec.publication.address, "HostPort": ""}]}


def _labels(spec: ContainerSpec) -> dict[str, str]:
    return run_labels(spec.key) | dict([consumer_label(spec.consumer)])


def _environment(spec: ContainerSpec, host: EngineHost) -> Mapping[str, str]:
    # Images built on CUDA bases carry NVIDIA_VISIBLE_DEVICES=all: if NVIDIA's runtime is the default, a run without
    # a GPU would see every GPU of the machine.
    if spec.gpu_uuid is None or host.gpu_by_cdi:
        return {**spec.environment, "NVIDIA_VISIBLE_DEVICES": "void"}
    return {
        **spec.environment,
        "NVIDIA_VISIBLE_DEVICES": spec.gpu_uuid,
        "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
    }


def _temporary_options(spec: ContainerSpec) -> str:
    # Executable on purpose: compilers at run time (torch inductor, triton) and one-file programs load what they write
    # to /tmp. noexec would stop only them: the image is foreign code from its first instruction on.
    options = f"rw,exec,nosuid,nodev,mode=1777,size={spec.temporary_bytes}"
    if spec.user:
        # runc before 1.2 gives the tmpfs the mode of the image's /tmp, so the user must own it to write to it.
        uid, _, gid = spec.user.partition(":")
        options += f",uid={uid},gid={gid or uid}"
    return options


def _gpu_request(uuid: str | None, host: EngineHost) -> list[dict[str, Any]]:
    if uuid is None:
        return []
    if host.gpu_by_cdi:
        return [{"Driver": "cdi", "DeviceIDs": [CDI_GPU + uuid]}]
    return [{"Driver": "", "DeviceIDs": [uuid], "Capabilities": [["gpu", "compute", "utility"]]}]


def mount_device(mount: Mount, host: EngineHost) -> Path:
    """The folder of a mount as the Engine sees it."""
    return host.work_root / mount.folder.relative_to(host.work_dir)


def volume_name(mount: Mount, device: Path) -> str:
    """A name that differs by folder: the Engine reuses a volume of the same name, whatever it holds."""
    return f"{mount.volume}-{hashlib.sha256(bytes(device)).hexdigest()[:8]}"


def _mount(mount: Mount, spec: ContainerSpec, host: EngineHost) -> dict[str, Any]:
    device = mount_device(mount, host)
    return {
        "Type": "volume",
        "Source": volume_name(mount, device),
        "Target": mount.target,
        "ReadOnly": mount.read_only,
        "VolumeOptions": {
            # Otherwise the Engine fills an empty volume with what the image has at the target.
            "NoCopy": True,
            "Labels": {f"{LABEL}.kept": "true"} if mount.kept else _labels(spec),
            "DriverConfig": {"Name": "local", "Options": {"type": "none", "o": "bind", "device": str(device)}},
        },
    }


def _ulimit(name: str, value: int) -> dict[str, Any]:
    return {"Name": name, "Soft": value, "Hard": value}
