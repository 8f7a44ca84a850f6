"""Turns an encoded image into what the classifier was trained on."""

import base64
import binascii
import io
from urllib.parse import unquote_to_bytes

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


def decode_url(url: str) -> bytes:
    """The content of a `data:` URL. Raises `ValueError` for others: a container has no network to fetch them from."""
    head, comma, body = url.partition(",")
    if not head.startswith("data:") or not comma:
        raise ValueError("url must be a data: URL; containers have no way to other hosts")
    data = unquote_to_bytes(body)
    if not head.endswith(";base64"):
        return data
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise ValueError(f"the data: URL is not base64: {error}") from error
