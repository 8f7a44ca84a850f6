"""Names under which files travel whose own do not."""

import re

_FIRST_BYTE, _LAST_BYTE = "\udc80", "\udcff"
"""What Python decodes the bytes of a name to that are no UTF-8."""
_DRIVE = re.compile(r"^[A-Za-z]:")


def escape_name(name: str, *, is_first: bool) -> str:
    """A name with what does not travel as `%` and two hex digits per byte; `is_first` where no folder is before it."""
    escaped = "".join(map(_escape, name))
    return escaped.replace(":", "%3A", 1) if is_first and _DRIVE.match(escaped) else escaped


def _escape(character: str) -> str:
    if _FIRST_BYTE <= character <= _LAST_BYTE:
        return f"%{ord(character) - 0xDC00:02X}"
    if character == "\\" or character < " " or "\x7f" <= character <= "\x9f":
        return "".join(f"%{byte:02X}" for byte in character.encode())
    return character
