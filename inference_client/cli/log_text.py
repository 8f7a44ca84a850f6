"""A container's log for a terminal: what the terminal would obey is taken out, except for colours."""

import codecs
import re

from inference_client.wording import printable

_COLOUR = re.compile(r"(\x1b\[[0-9;:]*m)")
_BEGINNING = re.compile(r"\x1b(\[[0-9;:]{0,32})?\Z")
RESET = "\x1b[0m"


class LogText:
    """Cleans a log that comes in pieces, which may end inside a character or a colour."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._is_coloured = False

    def clean(self, piece: bytes, *, final: bool = False) -> str:
        """What to show of the next piece; with `final` nothing is held back, and colours end."""
        text = self._held + self._decoder.decode(piece, final)
        begun = None if final else _BEGINNING.search(text)
        self._held = begun[0] if begun else ""
        parts = _COLOUR.split(text[: begun.start()] if begun else text)
        self._is_coloured |= len(parts) > 1
        # Every second part is a colour.
        shown = "".join(part if number % 2 else _plain(part) for number, part in enumerate(parts))
        return shown + RESET * (final and self._is_coloured)


def _plain(text: str) -> str:
    # Progress bars begin their line anew.
    return "\r".join(map(printable, text.split("\r")))
