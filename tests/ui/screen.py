"""What a test reads off the browser's screen, and what should stand there."""

import base64
import math

import numpy as np

BYTES = """(canvas) => {
    const {width, height} = canvas;
    const {data} = canvas.getContext('2d').getImageData(0, 0, width, height);
    return [height, width, btoa(Array.from(data, (byte) => String.fromCharCode(byte)).join(''))];
}"""  # one string: as a list of numbers, a picture takes seconds to arrive


def painted(canvas) -> np.ndarray:
    """The pixels of a located canvas, RGBA, (H, W, 4) uint8."""
    height, width, data = canvas.evaluate(BYTES)
    return np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)


def described(queries: np.ndarray, keys: np.ndarray, x: float, y: float) -> dict[str, float]:
    """What an attention map should say of the query at (x, y), from queries and keys (n*n, d)."""
    side = math.isqrt(len(queries))
    query = int(y * side) * side + int(x * side)
    logits = keys.astype(np.float64) @ queries[query].astype(np.float64)
    weights = np.exp(logits - logits.max())
    weights /= weights.sum()
    entropy = -(weights[weights > 0] * np.log2(weights[weights > 0])).sum()
    return {"query": query, "key": weights.argmax(), "weight": weights.max(), "entropy": entropy}
