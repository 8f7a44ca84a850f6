"""Durations and sizes, as people write and read them."""

import re
from datetime import UTC, datetime, timedelta

from inference_client.errors import UnusableInput

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {
    "": 1,
    "b": 1,
    **{prefix + "b": 1000**power for power, prefix in enumerate("kmgt", start=1)},
    **{prefix + "ib": 1024**power for power, prefix in enumerate("kmgt", start=1)},
}


def parse_duration(text: str) -> int:
    """Seconds in `90`, `90s`, `15m`, `2h`, `1h30m` or `7d`. Raises `UnusableInput`."""
    compact = text.strip().lower()
    if compact.isascii() and compact.isdigit():
        return int(compact)
    if not re.fullmatch(r"([0-9]+[smhd])+", compact):
        raise UnusableInput(f"{text!r} is not a duration: write seconds, or a number with s, m, h or d, as in 1h30m")
    return sum(int(number) * _SECONDS[unit] for number, unit in re.findall(r"([0-9]+)([smhd])", compact))


def parse_since(text: str) -> datetime:
    """The moment that is `2d` ago, or a date or time such as `2026-11-21` or `2026-11-21T07:00Z`; local without a zone.

    Raises `UnusableInput`.
    """
    try:
        return datetime.fromisoformat(text.strip()).astimezone()
    except ValueError:
        pass
    try:
        return datetime.now(UTC) - timedelta(seconds=parse_duration(text))
    except (UnusableInput, OverflowError) as error:
        raise UnusableInput(
            f"{text!r} is not a time: write how long ago, as in 2d, or a date, as in 2026-11-21"
        ) from error


def parse_size(text: str) -> int:
    """Bytes in `1048576`, `512MiB`, `1.5GiB` or `4GB` (decimal). Raises `UnusableInput`."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)", text.strip().lower())
    if match is None or match[2] not in _BYTES:
        raise UnusableInput(f"{text!r} is not a size: write bytes, or a number with a unit, as in 512MiB or 4GiB")
    return int(float(match[1]) * _BYTES[match[2]])


def format_duration(seconds: float) -> str:
    """The two largest units, as in `1h 05m`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02}h"


def format_size(size_bytes: int) -> str:
    """Binary units, as in `12.5 MiB`."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
