"""Version numbers as programs print them, compared."""

import re

Version = tuple[int, ...]


def parse_version(text: str) -> Version:
    """The first dotted number in a text, such as (1, 1, 5) in `1.1.5+ds1`; empty if there is none."""
    match = re.search(r"\d+(?:\.\d+)+", text)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def is_fixed(version: Version, fixed: tuple[Version, ...]) -> bool:
    """Whether a version has a fix that came with `fixed`: one version per branch, the newest first."""
    if version[:2] >= fixed[0][:2]:
        return version >= fixed[0]
    return any(version[:2] == branch[:2] and version >= branch for branch in fixed)
