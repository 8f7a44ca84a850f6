"""The small network that tells shapes apart."""

from pathlib import Path

import numpy as np

WEIGHTS = Path(__file__).parent / "weights.npz"
TOP = 3


class Network:
    """Its weights, as train.py wrote them."""

    def __init__(self) -> None:
        with np.load(WEIGHTS) as weights:
            self._weights = dict(weights)

    def classify(self, pixels: np.ndarray) -> tuple[list[str], list[float]]:
        """The likeliest classes of what `normalize` returns, and their probabilities."""
        hidden = np.maximum(pixels.ravel() @ self._weights["w1"] + self._weights["b1"], 0)
        scores = np.exp(hidden @ self._weights["w2"] + self._weights["b2"])
        probabilities = scores / scores.sum()
        best = np.argsort(-probabilities)[:TOP]
        return self._weights["classes"][best].tolist(), probabilities[best].tolist()
