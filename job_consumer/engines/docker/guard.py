"""The guard of a run that is on a network: what passes between the two, and the container that sees to it. Pure.

The guard holds the run's network namespace, in which the kernel filters by its rules; the run joins that namespace and
has no capability to change them. So nothing is relayed: a call costs what it cost before. docs/decisions/0046.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from job_consumer.engines import LABEL, RunKey, RunKind
from job_consumer.engines.docker.profile import NO_NAMES, SERVER_LABEL, run_labels
from job_consumer.networks import NetworkAccess, is_address

GUARD_LABEL = f"{LABEL}.guard"
"""On a guard, in the place of its run's own label: the run's uid."""
STANDS = "the guard stands"
ENTRYPOINT = ["/bin/sh", "-c", f'printf "%s" "$RULES" | nft -f - && echo "{STANDS}" && exec sleep infinity']
GUARD_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MEMORY_BYTES = 64 * 1024**2
_REFUSE = "reject with icmpx type admin-prohibited"
_NEIGHBOURS = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept"


@dataclass(frozen=True)
class Segment:
    """One range of addresses of a network."""

    subnet: str
    host: str | None
    """The address in it that the Engine's machine has."""


def guard_labels(key: RunKey) -> dict[str, str]:
    """The labels of the run's guard."""
    labels = run_labels(key)
    return {GUARD_LABEL: labels.pop(f"{LABEL}.{key.kind}"), **labels}


def guarded_key(labels: Mapping[str, str]) -> RunKey | None:
    """The run whose guard has these labels, or None if they are no guard's."""
    uid, fence = labels.get(GUARD_LABEL), labels.get(f"{LABEL}.fence", "")
    if uid is None or not fence.isdecimal():
        return None
    return RunKey(uid, int(fence), RunKind.REPLICA, labels.get(SERVER_LABEL, ""))


def segments_of(network: Mapping[str, Any]) -> list[Segment]:
    """The ranges of a network as the Engine describes it."""
    return [Segment(each["Subnet"], each.get("Gateway")) for each in network["IPAM"]["Config"] or []]


def guard_rules(
    access: NetworkAccess, segments: Sequence[Segment], *, is_published: bool, is_called_by_host: bool
) -> str:
    """What passes, as nft reads it.

    In: connections to the run's port; from its network, whose other runs cannot send any, and from the host itself
    only if something there `is_called_by_host`. A port that `is_published` is called from elsewhere as well.
    Out: connections to the gateway. If that has a name, they go to no address in particular but to its port, on the
    network and not to the host: no other run can have that port.
    """
    into = [f"tcp dport {access.port} accept"]
    if not is_published:
        sources = [_match("saddr", each, with_host=is_called_by_host) for each in segments]
        into = [f"{source} {into[0]}" for source in sources]
    return "\n".join(
        (
            "table inet guard {",
            *_chain("input", 'iifname "lo" accept', into),
            *_chain("output", 'oifname "lo" accept', _ways_out(access.gateway, segments, is_published=is_published)),
            "}",
            "",
        )
    )


def _chain(hook: str, loopback: str, rules: Sequence[str]) -> Iterator[str]:
    yield f"  chain {hook} {{"
    yield f"    type filter hook {hook} priority 0; policy drop;"
    # To refuse is kinder than to drop: programs need not wait for a time limit.
    for rule in (loopback, "ct state established,related accept", _NEIGHBOURS, *rules, _REFUSE):
        yield f"    {rule}"
    yield "  }"


def _ways_out(gateway: str, segments: Sequence[Segment], *, is_published: bool) -> list[str]:
    host, _, port = gateway.rpartition(":")
    host = host.strip("[]")
    if not host:
        return []
    if is_address(host):
        return [f"{_family(host)} daddr {host} tcp dport {port} accept"]
    # A network whose runs are published has no gateway on it.
    targets = [] if is_published else [_match("daddr", each, with_host=False) for each in segments]
    return [f"{target} tcp dport {port} accept" for target in targets]


def _match(side: str, segment: Segment, *, with_host: bool) -> str:
    family = _family(str(ip_network(segment.subnet, strict=False).network_address))
    without = f" {family} {side} != {segment.host}" if segment.host and not with_host else ""
    return f"{family} {side} {segment.subnet}{without}"


def _family(host: str) -> str:
    return "ip6" if ":" in host else "ip"


def guard_config(
    image: str,
    network: str,
    rules: str,
    *,
    labels: Mapping[str, str],
    ports: Mapping[str, list[dict[str, str]]],
    host_folders: Sequence[str] = (),
) -> dict[str, Any]:
    """The body of `POST /containers/create` for a guard with these rules.

    `ports` are those that the Engine publishes for its run. `host_folders` are mounted where they are, for an image
    that holds nothing.
    """
    mounts = [{"Type": "bind", "Source": path, "Target": path, "ReadOnly": True} for path in host_folders]
    return {
        "Image": image,
        "Entrypoint": ENTRYPOINT,
        "Cmd": [],
        "User": "0:0",
        "Env": [GUARD_PATH, f"RULES={rules}"],
        "Labels": dict(labels),
        "Healthcheck": {"Test": ["NONE"]},
        "ExposedPorts": {port: {} for port in ports},
        "HostConfig": {
            "NetworkMode": network,
            "PortBindings": dict(ports),
            "Dns": NO_NAMES,
            "IpcMode": "private",
            "CapDrop": ["ALL"],
            "CapAdd": ["NET_ADMIN"],
            "SecurityOpt": ["no-new-privileges"],
            "Privileged": False,
            "ReadonlyRootfs": True,
            **({"Mounts": mounts} if mounts else {}),
            "Memory": _MEMORY_BYTES,
            "MemorySwap": _MEMORY_BYTES,
            "PidsLimit": 16,
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "65536", "max-file": "1"}},
            "RestartPolicy": {"Name": "no"},
            "AutoRemove": False,
        },
    }
