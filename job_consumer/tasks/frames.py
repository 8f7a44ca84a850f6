"""Progress bars: lines that are written anew after a carriage return. Each state of one is a frame."""

FRAME_BYTES = 16 * 1024
"""A longer frame is no bar's, and stays."""
SHOWN_BYTES = 1024


class LastFrames:
    """Takes out of a log how its lines looked in between: of each line the first and the last frame stay.

    What it gives for a log does not depend on the pieces in which that comes: one that is read again gives the same.
    """

    def __init__(self) -> None:
        self._is_held = False
        """Whether the line had a carriage return: what follows may yet be replaced."""
        self._last = b""
        """The last frame that is complete and not empty."""
        self._frame = b""

    def take(self, piece: bytes) -> bytes:
        """What is known to stay after the next piece."""
        if not self._is_held and b"\r" not in piece:
            return piece
        kept: list[bytes] = []
        *lines, rest = piece.split(b"\n")
        for line in lines:
            self._add(line, kept)
            kept.append(self.finish() + b"\n")
        self._add(rest, kept)
        return b"".join(kept)

    def finish(self) -> bytes:
        """What is left of the line at its end, or at the log's."""
        if not self._is_held:
            return b""
        kept = self._frame or self._last
        # Lines may end with a carriage return, too.
        ending = b"" if self._frame else b"\r"
        self._is_held, self._last, self._frame = False, b"", b""
        return (b"\r" + kept if kept else b"") + ending

    def _add(self, text: bytes, kept: list[bytes]) -> None:
        if not self._is_held:
            first, mark, text = text.partition(b"\r")
            kept.append(first)
            self._is_held = bool(mark)
            if not mark:
                return
        *frames, rest = (self._frame + text).split(b"\r")
        for frame in frames:
            if len(frame) > FRAME_BYTES:
                kept.append(b"\r" + frame)
                self._last = b""
            else:
                self._last = frame or self._last
        self._frame = rest
        if len(rest) > FRAME_BYTES:
            kept.append(b"\r" + rest)
            self._is_held, self._last, self._frame = False, b"", b""


class MovingLine:
    """Follows the line that is being written, if it is one that is written anew."""

    def __init__(self) -> None:
        self.shown = b""
        """Its last frame, at most 1 KiB of it; empty for any other line."""
        self._line = b""

    def take(self, piece: bytes) -> None:
        """Follow the next piece of output."""
        line = (self._line + piece).rpartition(b"\n")[2]
        *frames, rest = line.split(b"\r")
        last = next((frame for frame in reversed(frames) if frame), b"")[:SHOWN_BYTES]
        rest = rest[:SHOWN_BYTES]
        self.shown = (rest or last) if frames else b""
        self._line = last + b"\r" + rest if frames else rest
