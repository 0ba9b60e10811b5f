"""What a test reads off the browser's screen."""

import base64

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
