"""What the names of images and of runtimes consist of.

Images: https://github.com/distribution/reference/blob/v0.6.0/reference.go
"""

import re
from typing import Annotated

from pydantic import BeforeValidator

RUNTIME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"


def bare_name(image: str) -> str:
    """An image's name without its tag and digest."""
    name = image.partition("@")[0]
    # A colon before the last slash is that of a port.
    return name.rpartition(":")[0] if ":" in name.rpartition("/")[2] else name


def full_name(image: str) -> str:
    """The name with its registry, which is Docker's own where none is named."""
    host, slash, _path = image.partition("/")
    if slash and (host == "localhost" or "." in host or ":" in host):
        return image
    return f"docker.io/{image}" if slash else f"docker.io/library/{image}"


def parse_runtimes(text: str) -> tuple[str, ...]:
    """The names of runtimes in a text, with spaces or commas between. Raises `ValueError`."""
    names = tuple(text.replace(",", " ").split())
    for name in names:
        if not re.fullmatch(RUNTIME_PATTERN, name):
            raise ValueError(f"{name!r} is no name of a runtime, as in runsc")
    return names


Runtimes = Annotated[tuple[str, ...], BeforeValidator(parse_runtimes)]
"""Names of an Engine's runtimes, as in `runsc kata`."""
