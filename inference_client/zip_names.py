"""Which names a zip's entries may have: checked before an upload, and before what arrived is unpacked."""

import re
import unicodedata
from collections.abc import Callable, Iterable

_MAX_NAME_BYTES = 1024
_MAX_PART_BYTES = 255
_MAX_DEPTH = 64

_FORBIDDEN = {
    r"[\x00-\x1f\x7f-\x9f]": "its name has a control character",
    r"\\": "its name has a backslash; folders are separated by /",
    r"\A/": "its name is an absolute path",
    r"\A[A-Za-z]:": "its name begins with a drive letter",
    r"(\A|/)\.\.?(/|\Z)": "a part of its name is '.' or '..'",
    r"\A\Z|//|/\Z": "its name has an empty part",
}


def quoted(name: str) -> str:
    """A name as it may stand in a message: its repr, cut at 200 characters."""
    text = repr(name)
    return text if len(text) <= 200 else text[:200] + "..."


def name_fault(path: str) -> str | None:
    """What is wrong with an entry's path (a folder's without its last slash), or None."""
    try:
        sizes = [len(part.encode()) for part in path.split("/")]
    except UnicodeEncodeError:
        return "its name is not valid UTF-8"
    for pattern, fault in _FORBIDDEN.items():
        if re.search(pattern, path):
            return fault
    if len(sizes) > _MAX_DEPTH:
        return f"it lies deeper than {_MAX_DEPTH} folders"
    if max(sizes) > _MAX_PART_BYTES or len(path.encode()) > _MAX_NAME_BYTES:
        return f"its name is longer than {_MAX_NAME_BYTES} bytes, or a part of it than {_MAX_PART_BYTES}"
    return None


def find_clash(paths: Iterable[tuple[str, bool]]) -> str | None:
    """Two of `paths` (each with whether it is a folder) that cannot both exist on any file system, in words."""
    return _find_clash(paths, str)


def find_lookalikes(paths: Iterable[tuple[str, bool]]) -> str | None:
    """Two of `paths` that cannot both exist on every file system, in words.

    Names that differ only in case or in Unicode composition are one name on macOS and Windows.
    """
    return _find_clash(paths, _fold)


def _find_clash(paths: Iterable[tuple[str, bool]], key_of: Callable[[str], str]) -> str | None:
    entries: dict[str, tuple[str, bool]] = {}
    folders: dict[str, tuple[str, str]] = {}
    for path, is_folder in paths:
        key = key_of(path)
        if key in entries:
            known = entries[key][0]
            return f"{quoted(known)} and {quoted(path)} name the same file" + (
                "" if known == path else " where case is ignored"
            )
        entries[key] = path, is_folder
        for folder in _folders_of(path):
            spelling, first = folders.setdefault(key_of(folder), (folder, path))
            if spelling != folder:
                return f"{quoted(first)} and {quoted(path)} lie in one folder spelled in two ways"
    for key, (folder, path) in folders.items():
        known, is_folder = entries.get(key, (folder, True))
        if not is_folder:
            return f"{quoted(known)} and {quoted(path)} clash: the first is a file, the second lies in it"
        if known != folder:
            return f"{quoted(known)} and {quoted(path)} lie in one folder spelled in two ways"
    return None


def _folders_of(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def _fold(name: str) -> str:
    """Equal for names that Unicode calls canonical caseless matches."""
    return unicodedata.normalize("NFD", name).casefold()
