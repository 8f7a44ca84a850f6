"""The profile of system calls: which Engines get it, and what it lets through."""

import hashlib
import json
from typing import Any

import pytest

from job_consumer.engines.docker.seccomp import FAMILIES, FILE, choose_profile, narrow

MOBY: dict[str, Any] = json.loads(FILE.read_text())


@pytest.mark.parametrize(
    ("options", "given"),
    [
        (["name=apparmor", "name=seccomp,profile=default", "name=cgroupns"], True),
        (["name=seccomp,profile=builtin", "name=rootless"], True),
        (["name=seccomp"], True),
        (["name=seccomp,profile=unconfined"], True),
        (["name=seccomp,profile=/etc/docker/hospital.json"], False),
        (["name=apparmor"], False),
        ([], False),
        (None, False),
    ],
)
def test_an_operators_own_profile_stays_and_an_engine_without_seccomp_gets_none(
    options: list[str] | None, given: bool
) -> None:
    assert (choose_profile({"SecurityOptions": options}) is not None) is given


def test_the_file_is_the_one_that_was_published() -> None:
    named = dict(reversed(line.split("  ")) for line in FILE.with_name("SHA256SUMS").read_text().splitlines())
    assert named == {FILE.name: hashlib.sha256(FILE.read_bytes()).hexdigest()}


def test_only_sockets_that_models_use_are_let_through() -> None:
    rules = narrow(MOBY)["syscalls"]
    sockets = [rule for rule in rules if "socket" in rule["names"]]
    assert [(rule["names"], rule["action"], rule["args"][0]["op"]) for rule in sockets] == [
        (["socket"], "SCMP_ACT_ALLOW", "SCMP_CMP_EQ")
    ] * len(FAMILIES)
    allowed = {rule["args"][0]["value"] for rule in sockets}
    # Unix, IP of both versions, and netlink, by which programs list the network's interfaces.
    assert allowed == {1, 2, 10, 16}


def test_32_bit_programs_have_no_way_around_it() -> None:
    calls = [rule for rule in narrow(MOBY)["syscalls"] if "socketcall" in rule["names"]]
    assert calls == [{"names": ["socketcall"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]
    assert narrow(MOBY)["syscalls"][0] == calls[0]
    assert MOBY["defaultErrnoRet"] != calls[0]["errnoRet"]


def test_everything_else_is_as_docker_has_it() -> None:
    def others(profile: dict[str, Any]) -> list[dict[str, Any]]:
        rules = [
            {**rule, "names": [name for name in rule["names"] if name not in ("socket", "socketcall")]}
            for rule in profile["syscalls"]
        ]
        return [rule for rule in rules if rule["names"]]

    narrowed = narrow(MOBY)
    assert others(narrowed) == others(MOBY)
    assert {name: value for name, value in narrowed.items() if name != "syscalls"} == {
        name: value for name, value in MOBY.items() if name != "syscalls"
    }
    assert MOBY["defaultAction"] == "SCMP_ACT_ERRNO"
