"""What the name of an image consists of, and which are allowed: names as
https://github.com/distribution/reference/blob/v0.6.0/reference.go has them."""

import re
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import BeforeValidator

RUNTIME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
_PATTERN = re.compile(r"[A-Za-z0-9*][A-Za-z0-9._/:@*-]*")


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


def parse_images(text: str) -> tuple[str, ...]:
    """The patterns in a text, with spaces or commas between. Raises `ValueError` for one that matches no image."""
    patterns = tuple(text.replace(",", " ").split())
    for pattern in patterns:
        if not _PATTERN.fullmatch(pattern):
            raise ValueError(f"{pattern!r} matches no image: name images as in lab/segment or registry.example.org/*")
    return patterns


def parse_runtimes(text: str) -> tuple[str, ...]:
    """The names of runtimes in a text, with spaces or commas between. Raises `ValueError`."""
    names = tuple(text.replace(",", " ").split())
    for name in names:
        if not re.fullmatch(RUNTIME_PATTERN, name):
            raise ValueError(f"{name!r} is no name of a runtime, as in runsc")
    return names


Runtimes = Annotated[tuple[str, ...], BeforeValidator(parse_runtimes)]
"""Names of an Engine's runtimes, as in `runsc kata`."""
Images = Annotated[tuple[str, ...], BeforeValidator(parse_images)]
"""Patterns of images, as in `lab/* registry.example.org/*`."""


def is_allowed(image: str, allowed: tuple[str, ...]) -> bool:
    """Whether one of the patterns matches the image; without patterns every image is allowed.

    A pattern is compared with the image as it is named, with and without its tag or digest, and with its full name, in
    which Docker's registry is `docker.io`. `*` stands for any text, also with slashes in it.
    """
    bare = bare_name(image)
    names = {image, bare, full_name(image), full_name(bare)}
    return not allowed or any(fnmatchcase(name, pattern) for name in names for pattern in allowed)
