"""What may be said of an error to operators: in the log, and where a consumer tells why it takes nothing.

The files of a task are named by its owner, and the system's errors name files.
"""

import re

_KEY = r"[0-9a-f]{64}-[0-9]+(?![^/])"
_OURS = re.compile(rf"/{_KEY}(?:/(?:inputs|outputs|progress)/is-[a-z0-9-]*?{_KEY}|/(?:input|output|progress)(?![^/]))?")
"""Of a path in a work directory, the last part that is named by this program and not by a task's owner."""


def operators_text(error: Exception) -> str:
    """The error in words. Of a path, only what this program named is left."""
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    said = f"{type(error).__name__}: {error.strerror}"
    paths = [_cut(path) for path in (error.filename, error.filename2) if path is not None]
    return f"{said}: {' -> '.join(paths)}" if any(paths) else said


def _cut(path: object) -> str:
    text = path.decode(errors="replace") if isinstance(path, bytes) else str(path)
    if not text.startswith("/"):
        # Relative to the descriptor of a folder, which may be any.
        return ""
    ours = _OURS.search(text)
    return text[: ours.end()] if ours else text
