"""The file with a user's settings: `server`, `grpc`, `key` and `ca` as TOML texts. It may hold a key."""

import json
import os
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inference_client.errors import UnusableInput

VARIABLES = {
    "server": "INFERENCE_SERVER_URL",
    "grpc": "INFERENCE_SERVER_GRPC",
    "key": "INFERENCE_SERVER_KEY",
    "ca": "INFERENCE_SERVER_CA",
}
"""What the file may hold, and the environment variables that win over it."""


def read_values(path: Path) -> dict[str, str]:
    """The stored values; empty without a file. Raises `UnusableInput` for a faulty one."""
    return _parse(path, _read(path))


def is_exposed(path: Path) -> bool:
    """Whether other users of this machine can read the file."""
    return os.name == "posix" and path.exists() and bool(path.stat().st_mode & 0o077)


def write_values(path: Path, changes: Mapping[str, str | None]) -> None:
    """Change the named values and keep all others, and comments; None removes one. Only its owner can read the file.

    It is replaced as a whole, so that nobody ever sees half of it. Raises `UnusableInput` and `OSError`.
    """
    text = _read(path)
    values = {name: value for name, value in {**_parse(path, text), **changes}.items() if value is not None}
    kept = [line for line in text.splitlines() if not _assigns(line, changes)]
    added = [_assignment(name, value) for name, value in changes.items() if value is not None]
    changed = "".join(f"{line}\n" for line in [*kept, *added])
    # A value over several lines, for example, was not recognised above.
    if _parse_quietly(changed) != values:
        changed = "".join(f"{_assignment(name, value)}\n" for name, value in values.items())
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The file behind a link is meant, as with files that are kept in a repository.
    target = path.resolve()
    descriptor, scratch = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(changed)
            file.flush()
            os.fsync(file.fileno())
        Path(scratch).replace(target)
    except BaseException:
        Path(scratch).unlink()
        raise


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not TOML"
        raise UnusableInput(f"{path} cannot be read: {reason}") from error


def _parse(path: Path, text: str) -> dict[str, str]:
    values = _parse_quietly(text)
    # Never the file's text in an error: it may hold the key.
    if values is None:
        raise UnusableInput(f"{path} cannot be read: it is not TOML")
    for name, value in values.items():
        if name not in VARIABLES or not isinstance(value, str):
            raise UnusableInput(f"{path}: {name!r} is not one of the texts {', '.join(VARIABLES)}")
    return values


def _parse_quietly(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except ValueError:
        return None


def _assigns(line: str, names: Mapping[str, object]) -> bool:
    return bool((_parse_quietly(line) or {}).keys() & names.keys())


def _assignment(name: str, value: str) -> str:
    # A JSON string is a TOML string, but for one character.
    return f"{name} = {json.dumps(value, ensure_ascii=False)}".replace("\x7f", "\\u007f")
