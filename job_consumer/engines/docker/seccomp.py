"""Which system calls a model's container may make: Docker's default profile, narrowed to the sockets that models use.

The profile is a file of moby's, unchanged; decision 0044 says how it is renewed.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "seccomp_profile" / "default.json"
FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16}
"""The sockets of programs that compute. Others lead to the hypervisor (AF_VSOCK, 40) or into parts of the kernel that
few others test (AF_ALG, 38: CVE-2026-31431)."""
_ENGINES_OWN = frozenset({"default", "builtin", "unconfined"})
"""How an Engine names its own profile, and none at all, which lets everything through."""
_ENOSYS = 38


def choose_profile(info: Mapping[str, Any]) -> str | None:
    """The profile for models on an Engine that says this of itself, as JSON.

    None where the Engine's stays: its operator gave it one, or it has no seccomp and would refuse any.
    """
    # Each is like `name=seccomp,profile=default`.
    options = [dict(pair.partition("=")[::2] for pair in text.split(",")) for text in info.get("SecurityOptions") or []]
    profiles = [option.get("profile", "default") for option in options if option.get("name") == "seccomp"]
    if not _ENGINES_OWN.intersection(profiles):
        return None
    return models_profile()


@cache
def models_profile() -> str:
    """The profile for models, as JSON."""
    return json.dumps(narrow(json.loads(FILE.read_text())), separators=(",", ":"))


def narrow(profile: Mapping[str, Any]) -> dict[str, Any]:
    """The profile with no socket but those of `FAMILIES`."""
    others = [_without_sockets(rule) for rule in profile["syscalls"]]
    return {**profile, "syscalls": [*_SOCKET_RULES, *(rule for rule in others if rule["names"])]}


def _without_sockets(rule: Mapping[str, Any]) -> dict[str, Any]:
    return {**rule, "names": [name for name in rule["names"] if name not in ("socket", "socketcall")]}


def _allow_family(number: int) -> dict[str, Any]:
    family = {"index": 0, "value": number, "op": "SCMP_CMP_EQ"}
    return {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [family]}


_SOCKET_RULES: Sequence[Mapping[str, Any]] = (
    # How 32-bit programs opened sockets of any family: its arguments lie in memory, which no filter reads. It comes
    # first, and with another error than the default: with the same one runc leaves the rule out, and libseccomp then
    # allows the call along with each socket rule.
    {"names": ["socketcall"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS},
    *map(_allow_family, FAMILIES.values()),
)
