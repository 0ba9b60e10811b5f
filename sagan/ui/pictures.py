"""Arrays on their way to the browser: pictures as data URIs, numbers as base64."""

import base64
from io import BytesIO

import numpy as np
from PIL import Image


def png_uri(image: np.ndarray) -> str:
    """uint8 (H, W, 3) -> a lossless data URI, 0.3 ms at 64 pixels."""
    return _uri(image, "png", compress_level=1)


def webp_uri(image: np.ndarray) -> str:
    """uint8 (H, W, 3) -> a small, slightly lossy data URI for pictures that are only looked at."""
    return _uri(image, "webp", quality=92, method=0)


def base64_floats(array: np.ndarray) -> str:
    """Any float array -> its float32 bytes, little-endian, in base64."""
    return base64_bytes(np.asarray(array, "<f4"))


def base64_bytes(array: np.ndarray) -> str:
    """The bytes of an array, row by row, in base64."""
    return base64.b64encode(array.tobytes()).decode()


def _uri(image: np.ndarray, kind: str, **options: int) -> str:
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
