"""Turns an encoded image into what the classifier was trained on."""

import io

import numpy as np
from PIL import Image

SIDE = 16
MAX_IMAGE_PIXELS = 40_000_000


def normalize(data: bytes) -> np.ndarray:
    """The image as SIDE x SIDE grey values, from 0 (like its border) to 1. Raises `ValueError`."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_IMAGE_PIXELS:
                raise ValueError(f"{image.width}x{image.height} pixels, at most {MAX_IMAGE_PIXELS} are accepted")
            small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    # Pillow's decoders raise nearly any exception on damaged files.
    except Exception as error:
        raise ValueError(f"this is not an image: {error}") from error
    grey = np.asarray(small, dtype=np.float32)
    border = np.median(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]]))
    distance = np.abs(grey - border)
    return distance / (distance.max() or 1)
