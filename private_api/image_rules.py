"""Which images and runtimes models may be registered with."""

import re
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import BeforeValidator

from contract.errors import PermissionDenied
from contract.image_names import bare_name, full_name
from contract.schemas import PROCESS_TAG_PREFIX

_PATTERN = re.compile(r"[A-Za-z0-9*][A-Za-z0-9._/:@*-]*")


def parse_images(text: str) -> tuple[str, ...]:
    """The patterns in a text, with spaces or commas between. Raises `ValueError` for one that matches no image."""
    patterns = tuple(text.replace(",", " ").split())
    for pattern in patterns:
        if not _PATTERN.fullmatch(pattern):
            raise ValueError(f"{pattern!r} matches no image: name images as in lab/segment or registry.example.org/*")
    return patterns


Images = Annotated[tuple[str, ...], BeforeValidator(parse_images)]
"""Patterns of images, as in `lab/* registry.example.org/*`."""


def check_image(image: str, allowed: tuple[str, ...]) -> None:
    """Raises `PermissionDenied` for an image that none of the patterns matches; without patterns every one may run.

    A pattern is compared with the image as it is named, with and without its tag or digest, and with its full name, in
    which Docker's registry is `docker.io`. `*` stands for any text, also with slashes in it.
    """
    if not allowed or image.startswith(PROCESS_TAG_PREFIX):
        return
    bare = bare_name(image)
    names = {image, bare, full_name(image), full_name(bare)}
    if not any(fnmatchcase(name, pattern) for name in names for pattern in allowed):
        raise PermissionDenied(
            f"the image {image} may not be registered here: the operator allows {' '.join(allowed)} (ALLOWED_IMAGES)"
        )


def check_runtime(runtime: str | None, offered: tuple[str, ...]) -> None:
    """Raises `PermissionDenied` for a runtime that the operator does not offer."""
    if runtime is not None and runtime not in offered:
        offer = f"offers {' '.join(offered)}" if offered else "offers none"
        raise PermissionDenied(
            f"the runtime {runtime} may not be asked for here: the operator {offer} (MODEL_RUNTIMES)"
        )
