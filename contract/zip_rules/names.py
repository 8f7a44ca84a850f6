"""The names that an archive's entries may have. The files of a run's output follow the same rules."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise, takewhile

MAX_NAME_BYTES = 1024
MAX_COMPONENT_BYTES = 255
MAX_DEPTH = 64
"""How many components a path may have."""

_FORBIDDEN = (
    (re.compile(r"[\x00-\x1f\x7f-\x9f]"), "its name has a control character"),
    (re.compile(r"\\"), "its name has a backslash; folders are separated by /"),
    (re.compile(r"\A/"), "its name is an absolute path"),
    (re.compile(r"\A[A-Za-z]:"), "its name begins with a drive letter"),
)


def quoted(name: str | bytes) -> str:
    """A name for use in a message: its repr, cut at 200 characters."""
    text = repr(name)
    return text if len(text) <= 200 else text[:200] + "..."


def name_fault(path: str) -> str | None:
    """What is wrong with the path of an entry, given without a trailing slash, or None."""
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        return "its name is not valid UTF-8"
    if size > MAX_NAME_BYTES:
        return f"its name is longer than {MAX_NAME_BYTES} bytes"
    for pattern, fault in _FORBIDDEN:
        if pattern.search(path):
            return fault
    return _component_fault(path.split("/"))


def _component_fault(components: list[str]) -> str | None:
    if len(components) > MAX_DEPTH:
        return f"it lies deeper than {MAX_DEPTH} folders"
    for component in components:
        if component in ("", ".", ".."):
            return f"its name has {component!r} between two slashes" if component else "its name has an empty part"
        if len(component.encode()) > MAX_COMPONENT_BYTES:
            return f"a part of its name is longer than {MAX_COMPONENT_BYTES} bytes"
    return None


def find_clashes(paths: Iterable[tuple[str, bool]]) -> Iterator[str]:
    """Describes pairs of `paths` (each with whether it is a folder) that cannot coexist on every file system.

    Names that differ only in case or in Unicode composition are one name on macOS and Windows.
    """
    return _find_clashes(paths, _key)


def find_clash(paths: Iterable[tuple[str, bool]]) -> str | None:
    """The first pair that cannot coexist on any file system: two of one path, or what lies in a file; or None."""
    return next(_find_clashes(paths, str), None)


def _find_clashes(paths: Iterable[tuple[str, bool]], key_of: Callable[[str], str]) -> Iterator[str]:
    # NUL sorts before every character of a name, so a folder comes directly before all it contains: if any two entries
    # clash, two neighbours clash.
    keyed = sorted((_sort_key(key_of(path)), path, is_dir) for path, is_dir in paths)
    for (key, path, is_dir), (next_key, next_path, _) in pairwise(keyed):
        pair = f"{quoted(path)} and {quoted(next_path)}"
        if key == next_key:
            yield f"{pair} name the same file" + ("" if path == next_path else " where case is ignored")
        elif not is_dir and next_key.startswith(key + b"\0"):
            yield f"{pair} clash: the first is a file, the second lies in it"
        elif _spells_a_folder_differently(path, next_path, key_of):
            yield f"{pair} lie in one folder spelled in two ways"


def _spells_a_folder_differently(path: str, other: str, key_of: Callable[[str], str]) -> bool:
    for left, right in zip(path.split("/"), other.split("/"), strict=False):
        if left != right:
            return key_of(left) == key_of(right)
    return False


def count_with_folders(paths: Iterable[str]) -> int:
    """How many files and folders the paths make on a disk, the folders that they only imply included."""
    total = 0
    before: list[bytes] = []
    # In this order each path shares more of its folders with the one before it than with any other before.
    for key in sorted(map(_sort_key, paths)):
        parts = key.split(b"\0")
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, parts, strict=False)))
        total += len(parts) - shared
        before = parts
    return total


def _sort_key(path: str) -> bytes:
    # As bytes: one wide character makes every other of a text as wide, and there may be very many long names.
    return path.encode().replace(b"/", b"\0")


def _key(name: str) -> str:
    """Equal for names that Unicode calls canonical caseless matches."""
    return unicodedata.normalize("NFD", name).casefold()
