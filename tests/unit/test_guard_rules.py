"""What passes a replica's guard, and what a filter before the Engine lets a guard be. Without Docker."""

import json
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import pytest

from job_consumer.engines import RunKey, RunKind
from job_consumer.engines.docker.filter.calls import Refused
from job_consumer.engines.docker.filter.creation import Allowed, judge_creation
from job_consumer.engines.docker.guard import Segment, guard_config, guard_labels, guard_rules, guarded_key, segments_of
from job_consumer.engines.docker.profile import run_key
from job_consumer.networks import NetworkAccess

KEY = RunKey("ab" * 32, 3, RunKind.REPLICA, "5e12ab34")
SEGMENTS = [Segment("172.20.0.0/16", "172.20.0.1")]
IMAGE = "inference-server:0.1.0"
ALLOWED = Allowed(PurePosixPath("/work"), "replicas", IMAGE, "192.0.2.7")
PORTS = {"8001/tcp": [{"HostIp": "192.0.2.7", "HostPort": ""}]}


def passing(access: NetworkAccess, segments: list[Segment] = SEGMENTS, **how: bool) -> tuple[list[str], list[str]]:
    """What passes into the run and out of it, beside what every guard lets pass."""
    asked = {"is_published": False, "is_called_by_host": False} | how
    lines = [line.strip() for line in guard_rules(access, segments, **asked).splitlines()]
    middle = lines.index("chain output {")
    into, out = lines[:middle], lines[middle:]
    assert all(chain.count("}") == 1 + (chain is out) for chain in (into, out))
    assert all(chain[-2 - (chain is out)].startswith("reject") for chain in (into, out))
    assert all("policy drop;" in "".join(chain) for chain in (into, out))
    return tuple([rule for rule in chain if " dport " in rule] for chain in (into, out))  # type: ignore[return-value]


def test_beside_containers_the_port_is_for_the_network_and_not_for_its_host() -> None:
    assert passing(NetworkAccess("replicas", 8001)) == (
        ["ip saddr 172.20.0.0/16 ip saddr != 172.20.0.1 tcp dport 8001 accept"],
        [],
    )


def test_beside_programs_of_the_host_the_host_may_call() -> None:
    into, _ = passing(NetworkAccess("replicas", 8001), is_called_by_host=True)
    assert into == ["ip saddr 172.20.0.0/16 tcp dport 8001 accept"]


def test_a_published_port_is_for_whoever_reaches_the_host_and_leads_nowhere() -> None:
    access = NetworkAccess("replicas", 8001, "grpc-gateway:9002")
    assert passing(access, is_published=True) == (["tcp dport 8001 accept"], [])


@pytest.mark.parametrize(
    ("gateway", "out"),
    [
        ("", []),
        ("grpc-gateway:9002", ["ip daddr 172.20.0.0/16 ip daddr != 172.20.0.1 tcp dport 9002 accept"]),
        ("172.20.0.1:9002", ["ip daddr 172.20.0.1 tcp dport 9002 accept"]),
        ("[fd00::1]:9002", ["ip6 daddr fd00::1 tcp dport 9002 accept"]),
    ],
)
def test_the_way_out_leads_to_the_gateway(gateway: str, out: list[str]) -> None:
    assert passing(NetworkAccess("replicas", 8001, gateway))[1] == out


def test_each_range_of_a_network_has_its_rule() -> None:
    network = {"IPAM": {"Config": [{"Subnet": "172.20.0.0/16"}, {"Subnet": "fd00::/64", "Gateway": "fd00::1"}]}}
    into, _ = passing(NetworkAccess("replicas", 8001), segments_of(network))
    assert into == [
        "ip saddr 172.20.0.0/16 tcp dport 8001 accept",
        "ip6 saddr fd00::/64 ip6 saddr != fd00::1 tcp dport 8001 accept",
    ]


@pytest.mark.parametrize(
    ("gateway", "port", "taken"),
    [
        ("grpc-gateway:9002", 9002, True),
        ("grpc-gateway:9002", 9000, False),
        ("172.20.0.1:9002", 9002, False),
        ("", 9002, False),
    ],
)
def test_where_the_gateway_has_a_name_its_port_is_no_runs(gateway: str, port: int, *, taken: bool) -> None:
    assert NetworkAccess("replicas", port, gateway).has_port_of_gateway is taken


def test_a_guard_is_found_by_its_labels_and_is_no_run() -> None:
    labels = guard_labels(KEY)
    assert guarded_key(labels) == KEY
    assert run_key(labels) is None
    assert guarded_key({"inference-server.guard": KEY.uid}) is None
    assert guarded_key({}) is None


def guard(image: str = IMAGE, network: str = "replicas") -> dict[str, Any]:
    rules = guard_rules(NetworkAccess(network, 8001), SEGMENTS, is_published=True, is_called_by_host=False)
    return guard_config(image, network, rules, labels=guard_labels(KEY), ports=PORTS)


def test_a_filter_lets_a_guard_through_as_it_is() -> None:
    body = guard()
    assert json.loads(judge_creation(json.dumps(body).encode(), ALLOWED)) == body


def change(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda body: body.update(changes)


def change_host(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda body: body["HostConfig"].update(changes)


@pytest.mark.parametrize(
    "attack",
    [
        change(Image="evil"),
        change(Entrypoint=["/bin/sh", "-c", "evil"]),
        change(Entrypoint=None),
        change(Cmd=["evil"]),
        change(Env=["PATH=/evil", "RULES="]),
        lambda body: body["Env"].append("LD_PRELOAD=/evil.so"),
        change(Labels={"com.docker.compose.project": "inference-server"}),
        change_host(CapAdd=["NET_ADMIN", "SYS_ADMIN"]),
        change_host(CapAdd=["SYS_ADMIN"]),
        change_host(NetworkMode="host"),
        change_host(NetworkMode="container:inference-server-private-api-1"),
        change_host(NetworkMode="container:is-x-guard"),
        change_host(NetworkMode="none"),
        change_host(Binds=["/:/host"]),
        change_host(Mounts=[{"Type": "bind", "Source": "/", "Target": "/host"}]),
        change_host(Privileged=True),
        change_host(ReadonlyRootfs=False),
        change_host(SecurityOpt=["no-new-privileges", "seccomp=unconfined"]),
        change_host(PortBindings={"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "80"}]}),  # noqa: S104
        change_host(PidMode="host"),
        change_host(MemorySwap=-1),
    ],
)
def test_a_filter_refuses_a_guard_that_does_anything_else(attack: Callable[[dict[str, Any]], None]) -> None:
    body = guard()
    attack(body)
    with pytest.raises(Refused):
        judge_creation(json.dumps(body).encode(), ALLOWED)


def test_without_an_image_for_them_a_filter_lets_no_guard_through() -> None:
    with pytest.raises(Refused, match="REPLICA_GUARD_IMAGE"):
        judge_creation(json.dumps(guard()).encode(), Allowed(PurePosixPath("/work"), "replicas"))
