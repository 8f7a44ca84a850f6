"""Reads and writes protobuf messages without generated code: for messages that are only passed on and peeked into.

The wire format is a sequence of fields: a tag (number << 3 | wire type), then a varint, 4 or 8 bytes, or a length and
that many bytes. Groups, which nothing since proto2 writes, are refused.
"""

from collections.abc import Iterator, Sequence

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
MAX_PEEKED_FIELDS = 4096
"""After this many fields `peek` gives up: a message made to be slow must not hold an event loop."""
_MAX_VARINT_BYTES = 10


class MalformedMessage(ValueError):
    """The bytes are not a protobuf message."""


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field in wire order: an int for a varint, otherwise its bytes.

    Raises `MalformedMessage` when it reaches a fault.
    """
    position, end = 0, len(message)
    while position < end:
        number, kind, position = _read_tag(message, position)
        if kind == VARINT:
            value, position = _read_varint(message, position)
            yield number, value
        else:
            start, position = _read_bounds(message, position, kind)
            yield number, message[start:position]


def peek(message: bytes, path: Sequence[int]) -> bytes | int | None:
    """The field that `path` leads to through nested messages; None if it is missing or the bytes are malformed.

    Of a repeated field the first value counts, so that nothing behind it is looked at: finding a name costs the same
    in front of a megabyte as in front of nothing.
    """
    position, end = 0, len(message)
    try:
        for depth, wanted in enumerate(path):
            for _ in range(MAX_PEEKED_FIELDS):
                if position >= end:
                    return None
                number, kind, position = _read_tag(message, position)
                if kind == VARINT:
                    value, position = _read_varint(message, position)
                    if number == wanted:
                        return value if depth == len(path) - 1 else None
                    continue
                start, position = _read_bounds(message, position, kind)
                if number == wanted:
                    if depth == len(path) - 1:
                        return message[start:position]
                    position, end = start, position
                    break
            else:
                return None
    except MalformedMessage:
        return None
    return None


def peek_each(message: bytes, wanted: int) -> Iterator[bytes]:
    """The values of a repeated message, string or bytes field, as far as the bytes are well formed.

    No other field is copied, and of a message with very many fields only the first are looked at.
    """
    position, end = 0, len(message)
    try:
        for _ in range(MAX_PEEKED_FIELDS):
            if position >= end:
                return
            number, kind, position = _read_tag(message, position)
            if kind == VARINT:
                _, position = _read_varint(message, position)
                continue
            start, position = _read_bounds(message, position, kind)
            if number == wanted and kind == LENGTH:
                yield message[start:position]
    except MalformedMessage:
        return


def peek_text(message: bytes, path: Sequence[int]) -> str:
    """The string that `path` leads to; empty if there is none, as in protobuf."""
    value = peek(message, path)
    return value.decode(errors="replace") if isinstance(value, bytes) else ""


def varint_field(number: int, value: int) -> bytes:
    """An int32, int64, uint, enum or bool field; nothing for the default, 0."""
    return _varint(number << 3 | VARINT) + _varint(value & (1 << 64) - 1) if value else b""


def bytes_field(number: int, value: bytes) -> bytes:
    """A bytes field, or an encoded nested message. It is written even if it is empty."""
    return _varint(number << 3 | LENGTH) + _varint(len(value)) + value


def text_field(number: int, value: str) -> bytes:
    """A string field; nothing for the default, the empty string."""
    return bytes_field(number, value.encode()) if value else b""


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    for byte in message[position : position + _MAX_VARINT_BYTES]:
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, position
        shift += 7
    raise MalformedMessage("a number has no end")


def _read_tag(message: bytes, position: int) -> tuple[int, int, int]:
    tag, position = _read_varint(message, position)
    if tag < 8:
        raise MalformedMessage("a field has no number")
    return tag >> 3, tag & 7, position


def _read_bounds(message: bytes, position: int, kind: int) -> tuple[int, int]:
    if kind == LENGTH:
        size, position = _read_varint(message, position)
    elif kind in (FIXED32, FIXED64):
        size = 4 if kind == FIXED32 else 8
    else:
        raise MalformedMessage(f"wire type {kind} is not known")
    if position + size > len(message):
        raise MalformedMessage("a field is longer than its message")
    return position, position + size
