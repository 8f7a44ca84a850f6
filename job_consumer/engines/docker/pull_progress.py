"""How far a pull is, from what the Engine says of each layer while it downloads and unpacks it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class _Layer:
    """A layer that is not on the host yet."""

    size: float | None = None
    """In bytes; the Engine says it once it downloads the layer."""
    downloaded: float = 0.0
    """Between 0 and 1, as the next one."""
    unpacked: float = 0.0


class PullProgress:
    """Follows one pull. Downloading and unpacking count half each, and a layer counts by its size."""

    def __init__(self) -> None:
        self._layers: dict[str, _Layer] = {}
        self.percent = 0
        """It never falls. 0 also while nothing is known."""

    def note(self, line: Mapping[str, Any]) -> None:
        """Take in one line of the Engine's answer."""
        name, status = line.get("id"), line.get("status")
        if not isinstance(name, str):
            return
        if status == "Pulling fs layer":
            self._layers.setdefault(name, _Layer())
        elif name in self._layers:
            _note(self._layers[name], status, line.get("progressDetail") or {})
        self.percent = max(self.percent, self._judge())

    def _judge(self) -> int:
        known = [layer.size for layer in self._layers.values() if layer.size]
        if not known:
            return 0
        # A layer of which nothing is known yet is taken for one like the others.
        usual = sum(known) / len(known)
        sizes = [(layer.size or usual, layer) for layer in self._layers.values()]
        done = sum(size * (layer.downloaded + layer.unpacked) / 2 for size, layer in sizes)
        return int(100 * done / sum(size for size, _ in sizes))


def _note(layer: _Layer, status: object, detail: Mapping[str, Any]) -> None:
    current, total = detail.get("current"), detail.get("total")
    share = min(1.0, current / total) if current and total else 0.0
    if status == "Downloading":
        layer.size = total or layer.size
        layer.downloaded = max(layer.downloaded, share)
    elif status in ("Download complete", "Verifying Checksum"):
        layer.downloaded = 1.0
    elif status == "Extracting":
        layer.downloaded, layer.unpacked = 1.0, max(layer.unpacked, share)
    elif status in ("Pull complete", "Already exists"):
        layer.downloaded = layer.unpacked = 1.0
