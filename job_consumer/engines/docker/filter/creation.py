"""Which containers a consumer may create: those of `engines.docker.profile`, and none with more rights. Pure: no I/O.

A container is described as the Engine's API names its parts. A part that is not described here is refused, whatever it
means: that also holds for the same name in other letters, which the Engine reads as the same.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from job_consumer.engines import LABEL
from job_consumer.engines.docker.filter.calls import RUN, VOLUME, Refused
from job_consumer.engines.docker.guard import ENTRYPOINT, GUARD_PATH
from job_consumer.engines.docker.profile import CDI_GPU
from job_consumer.engines.docker.seccomp import models_profile

_NO_NEW_PRIVILEGES = "no-new-privileges"
_GPU = rf"^({re.escape(CDI_GPU)})?(GPU|MIG)-[A-Za-z0-9/-]{{1,100}}$"
_GUARDED = re.compile(rf"container:{RUN}-guard")
_TMPFS = re.compile(r"rw,exec,nosuid,nodev,mode=1777,size=[1-9][0-9]*(,uid=[0-9]+,gid=[0-9]+)?")


@dataclass(frozen=True)
class Allowed:
    """What differs from host to host."""

    work_root: PurePosixPath
    """The work directory as the Engine sees it. Every folder of a container lies in it."""
    network: str | None = None
    """The only network that containers may have."""
    guard_image: str | None = None
    """The only image of guards, which alone have a capability."""
    publish_address: str | None = None
    """The only address of the host at which they may publish a port."""
    runtimes: tuple[str, ...] = ()
    """The runtimes that containers may have, beside the Engine's default."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _allowed(info: ValidationInfo) -> Allowed:
    if not isinstance(info.context, Allowed):
        raise TypeError("a container is judged with what is allowed on its host")
    return info.context


def _check_labels(value: dict[str, str]) -> dict[str, str]:
    # Another's labels would make others take the container for theirs, as Compose does.
    if strange := [name for name in value if not name.startswith(f"{LABEL}.")]:
        raise ValueError(f"{min(strange)} is no label of ours")
    return value


def _check_network(value: str, info: ValidationInfo) -> str:
    if value != _allowed(info).network:
        raise ValueError("is no network of replicas")
    return value


def _check_run_network(value: str, info: ValidationInfo) -> str:
    return value if value == "none" or _GUARDED.fullmatch(value) else _check_network(value, info)


def _check_guard_image(value: str, info: ValidationInfo) -> str:
    if value != _allowed(info).guard_image:
        raise ValueError("is not the image of guards (REPLICA_GUARD_IMAGE)")
    return value


def _check_runtime(value: str, info: ValidationInfo) -> str:
    if value not in _allowed(info).runtimes:
        raise ValueError("the operator does not offer it (MODEL_RUNTIMES)")
    return value


def _check_address(value: str, info: ValidationInfo) -> str:
    if value != _allowed(info).publish_address:
        raise ValueError("is not the address at which replicas are published")
    return value


def _check_device(value: str, info: ValidationInfo) -> str:
    folder, root = PurePosixPath(value), _allowed(info).work_root
    if ".." in folder.parts or root not in folder.parents:
        raise ValueError("lies outside the work directory")
    return value


def _check_tmpfs(value: dict[str, str]) -> dict[str, str]:
    if any(target != "/tmp" or not _TMPFS.fullmatch(options) for target, options in value.items()):  # noqa: S108
        raise ValueError("is not the /tmp of a run")
    return value


def _check_security(value: list[str]) -> list[str]:
    rest = [option for option in value if option != _NO_NEW_PRIVILEGES]
    # Without a profile the Engine's own holds.
    if len(rest) == len(value) or rest not in ([], [f"seccomp={models_profile()}"]):
        raise ValueError("must be no-new-privileges and the profile for models")
    return value


def _check_entrypoint(value: list[str]) -> list[str]:
    if value != ENTRYPOINT:
        raise ValueError("is not that of a guard")
    return value


def _check_guard_variables(value: list[str]) -> list[str]:
    # Another variable could make the shell, or the loader, run something else.
    if len(value) != 2 or value[0] != GUARD_PATH or not value[1].startswith("RULES="):
        raise ValueError("are not those of a guard")
    return value


Labels = Annotated[dict[str, str], AfterValidator(_check_labels)]
Positive = Annotated[int, Field(gt=0)]


class _Healthcheck(_Part):
    Test: Annotated[list[Literal["NONE"]], Field(min_length=1)]


class _Publication(_Part):
    HostIp: Annotated[str, AfterValidator(_check_address)]
    HostPort: Literal[""]


class _BindOptions(_Part):
    type: Literal["none"]
    o: Literal["bind"]
    device: Annotated[str, AfterValidator(_check_device)]


class _Driver(_Part):
    Name: Literal["local"]
    Options: _BindOptions


class _VolumeOptions(_Part):
    NoCopy: Literal[True]
    Labels: Labels
    DriverConfig: _Driver


class _Mount(_Part):
    Type: Literal["volume"]
    # The Engine takes a volume of this name as it is, whatever else is said of it here.
    Source: Annotated[str, Field(pattern=rf"^{VOLUME}$")]
    Target: Annotated[str, Field(pattern=r"^/")]
    ReadOnly: bool
    VolumeOptions: _VolumeOptions


class _Ulimit(_Part):
    Name: Literal["nofile", "core"]
    Soft: int
    Hard: int


class _LogFile(_Part):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)
    max_size: Annotated[str, Field(alias="max-size", pattern=r"^[1-9][0-9]*$")]
    max_file: Annotated[Literal["1"], Field(alias="max-file")]


class _Log(_Part):
    Type: Literal["json-file"]
    Config: _LogFile


class _Restart(_Part):
    Name: Literal["no"]


class _DeviceRequest(_Part):
    Driver: Literal["", "cdi"]
    DeviceIDs: Annotated[list[Annotated[str, Field(pattern=_GPU)]], Field(max_length=1)]
    Capabilities: list[list[Literal["gpu", "compute", "utility"]]] = []


class _Confined(_Part):
    """What holds for every container."""

    PortBindings: dict[str, list[_Publication]]
    Dns: list[Literal["127.0.0.1"]]
    IpcMode: Literal["private"]
    CapDrop: Annotated[list[Literal["ALL"]], Field(min_length=1)]
    Privileged: Literal[False]
    Memory: Positive
    MemorySwap: Positive
    PidsLimit: Positive
    LogConfig: _Log
    RestartPolicy: _Restart
    AutoRemove: Literal[False]

    @model_validator(mode="after")
    def _check_swap(self) -> Self:
        if self.MemorySwap != self.Memory:
            raise ValueError("MemorySwap must be Memory, which means no swap")
        return self


class _HostConfig(_Confined):
    NetworkMode: Annotated[str, AfterValidator(_check_run_network)]
    SecurityOpt: Annotated[list[str], AfterValidator(_check_security)]
    ReadonlyRootfs: bool
    Tmpfs: Annotated[dict[str, str], AfterValidator(_check_tmpfs)]
    Mounts: list[_Mount]
    NanoCpus: Annotated[int, Field(ge=0)]
    ShmSize: Positive
    Ulimits: list[_Ulimit]
    Init: bool
    DeviceRequests: Annotated[list[_DeviceRequest], Field(max_length=1)]
    Runtime: Annotated[str, AfterValidator(_check_runtime)] = ""


class _Container(_Part):
    Image: Annotated[str, Field(min_length=1)]
    User: str
    Env: list[str]
    Labels: Labels
    Healthcheck: _Healthcheck
    ExposedPorts: dict[str, _Part]
    HostConfig: _HostConfig


class _GuardHostConfig(_Confined):
    NetworkMode: Annotated[str, AfterValidator(_check_network)]
    CapAdd: Annotated[list[Literal["NET_ADMIN"]], Field(max_length=1)]
    SecurityOpt: Annotated[list[Literal["no-new-privileges"]], Field(min_length=1)]
    ReadonlyRootfs: Literal[True]


class _Guard(_Part):
    """All of it is fixed but its rules, and these are for a network namespace that it shares with runs alone."""

    Image: Annotated[str, AfterValidator(_check_guard_image)]
    Entrypoint: Annotated[list[str], AfterValidator(_check_entrypoint)]
    Cmd: Annotated[list[str], Field(max_length=0)]
    User: Literal["0:0"]
    Env: Annotated[list[str], AfterValidator(_check_guard_variables)]
    Labels: Labels
    Healthcheck: _Healthcheck
    ExposedPorts: dict[str, _Part]
    HostConfig: _GuardHostConfig


def judge_creation(body: bytes, allowed: Allowed) -> bytes:
    """The container as it is passed on, written anew. Raises `Refused`, which names the part that is refused."""
    try:
        described = json.loads(body)
        # Runs have the entry point of their image.
        kind = _Guard if isinstance(described, dict) and "Entrypoint" in described else _Container
        container = kind.model_validate(described, context=allowed)
        return container.model_dump_json(by_alias=True, exclude_unset=True).encode()
    except ValidationError as error:
        # Never the input: variables hold tokens.
        fault = error.errors(include_input=False, include_url=False)[0]
        raise Refused(f"{'.'.join(map(str, fault['loc'])) or 'the container'}: {fault['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise Refused("the container is not JSON, or has text that is none") from error


def devices_of(container: Mapping[str, Any]) -> list[str]:
    """The folders of a container, as described to the Engine or by it."""
    options = [mount.get("VolumeOptions") or {} for mount in container["HostConfig"].get("Mounts") or []]
    drivers = [(each.get("DriverConfig") or {}).get("Options") or {} for each in options]
    return [driver["device"] for driver in drivers if "device" in driver]
