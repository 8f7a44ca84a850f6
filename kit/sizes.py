"""Sizes in sentences."""

_MIB = 1024**2
_GIB = 1024**3


def say_bytes(size: int) -> str:
    """A size as people read it: `1.5 GiB`, `300 MiB`, `512 bytes`."""
    if 0 < size < _MIB:
        return f"{size} bytes"
    return f"{size / _GIB:.1f} GiB" if size >= _GIB else f"{size / _MIB:.0f} MiB"
