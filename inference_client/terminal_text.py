"""Text that others wrote, fit to be shown: nothing in it is a command to the terminal that it reaches in the end."""

import codecs
import re
import unicodedata

RESET = "\x1b[0m"
_COLOUR = re.compile(r"(\x1b\[[0-9;:]*m)")
_BEGINNING = re.compile(r"\x1b(\[[0-9;:]{0,32})?\Z")


def printable(text: str) -> str:
    """`text` in one or more lines, without colours; each other sign that a terminal might obey is replaced."""
    return _replace_signs(_COLOUR.sub("", text))


def one_line(text: str) -> str:
    """The same in one line, so that it cannot pass for further lines of what it is shown in."""
    return printable(" ".join(text.splitlines()))


class LogText:
    """Cleans a log that comes in pieces, which may end inside a character or a colour.

    Colours and carriage returns, with which progress bars begin their line anew, stay.
    """

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
        shown = "".join(part if number % 2 else _replace_signs(part, "\r") for number, part in enumerate(parts))
        return shown + RESET * (final and self._is_coloured)


def _replace_signs(text: str, kept: str = "") -> str:
    return "".join(sign if _is_harmless(sign) or sign in kept else "\N{REPLACEMENT CHARACTER}" for sign in text)


def _is_harmless(sign: str) -> bool:
    # To Python every blank but the plain one is unprintable, as between the words of some languages.
    return sign.isprintable() or sign in "\n\t" or unicodedata.category(sign) == "Zs"
