"""What the Engine's text about a registry means: whose fault it is, and what may be told of it.

The Engine passes a registry's answer on as text; its own status code shows only part of it. The sentences for users
tell of no address whether something listens there: only an answer of a registry is told apart from none.
"""

import re
from enum import Enum


class PullFault(Enum):
    """Why a registry did not give an image, as far as the Engine's text says."""

    ABSENT = "absent"
    UNREACHABLE = "unreachable"
    OURS = "ours"


_UNKNOWN = (PullFault.OURS, "the consumer's log says why")

# The first that is found counts.
_FAULTS = tuple(
    (re.compile(pattern, re.IGNORECASE), fault, why)
    for pattern, fault, why in (
        (
            r"toomanyrequests|too many requests|pull rate limit|unexpected (http )?status.{0,300}\b429\b",
            PullFault.OURS,
            "its registry takes no more requests at the moment",
        ),
        (
            r"unexpected (http )?status.{0,300}\b5\d\d\b",
            PullFault.OURS,
            "its registry is in trouble",
        ),
        (
            r"no such host|connection refused|connection reset|no route to host|network is unreachable|timeout"
            r"|timed out|deadline exceeded|name resolution|server misbehaving|: EOF$"
            # Something listens there, and speaks something else.
            r"|HTTP response to HTTPS client|malformed HTTP|does not look like a TLS handshake|\btls: |\bx509: ",
            PullFault.UNREACHABLE,
            "no registry could be reached",
        ),
        (r"no space left on device", PullFault.OURS, "the disk of its host is full"),
        (
            r"invalid reference format|invalid repository name|must be lowercase",
            PullFault.ABSENT,
            "that is not the name of an image",
        ),
        (r"no matching manifest", PullFault.ABSENT, "it has none for the CPU or the system of this host"),
        (r"manifest unknown|name unknown|not found", PullFault.ABSENT, "it has no such image, or no such tag of it"),
        (
            r"pull access denied|repository does not exist|unauthorized|authentication required|denied"
            r"|no basic auth credentials",
            PullFault.ABSENT,
            "it has no such image, or wants a login that this consumer does not have",
        ),
    )
)


def judge_pull(said: str) -> tuple[PullFault, str]:
    """Why a registry did not give an image, and the same in words for everyone.

    A text that is not known does not count against the image.
    """
    return next(((fault, why) for pattern, fault, why in _FAULTS if pattern.search(said)), _UNKNOWN)
