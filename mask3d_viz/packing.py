"""Pictures of whole numbers as text, small: what a page without Python carries, and living_page.js unpacks.

Each number is replaced by its difference to a guess from the pixels to the left, above and above left (the median of
left, above and left + above - corner, as JPEG-LS has it), small differences become small numbers of either sign, low and
high bytes go apart, and zlib does the rest. Nothing is lost here; what is lost is lost in rounding metres to steps.
"""

from __future__ import annotations

import base64
import math
import zlib

import numpy as np

from mask3d_viz.pixels import PictureError

LARGEST = 65535


def to_steps(metres: np.ndarray, step: float) -> tuple[np.ndarray, float]:
    """Depth as whole steps, off by at most half a step.

    Args:
        metres: float, finite and >= 0.
        step: metres; where 65535 of them do not reach, twice, three times, ... as much.

    Returns:
        uint16 of the same shape, and the metres of a step.

    Raises:
        PictureError: a depth below 0 or not finite.
    """
    metres = np.asarray(metres, np.float64)
    if not np.isfinite(metres).all() or (metres < 0).any():
        raise PictureError("finite depth of at least 0 m", "NaN, infinite or negative", "Look for where the model broke.")
    step = step * max(1, math.ceil(float(metres.max(initial=0)) / (LARGEST * step)))
    return np.rint(metres / step).astype(np.uint16), step


def _guess(planes: np.ndarray) -> np.ndarray:
    """What each number is guessed to be from its left, upper and upper-left neighbour; 0 outside of the picture."""
    padded = np.pad(planes, ((0, 0), (1, 0), (1, 0)))
    left, above, corner = padded[:, 1:, :-1], padded[:, :-1, 1:], padded[:, :-1, :-1]
    return np.clip(left + above - corner, np.minimum(left, above), np.maximum(left, above))


def pack(planes: np.ndarray) -> str:
    """Whole numbers as text.

    Args:
        planes: integers 0..65535, (k, H, W) or (H, W).

    Returns:
        base64 of zlib of the low bytes and then the high bytes of the differences.
    """
    planes = np.asarray(planes)
    planes = planes.reshape(-1, *planes.shape[-2:]).astype(np.int32)
    difference = (planes - _guess(planes)).astype(np.int16).astype(np.int32)  # modulo 65536
    code = ((difference << 1) ^ (difference >> 15)).astype(np.uint16)
    return pack_bytes((code & 255).astype(np.uint8).tobytes() + (code >> 8).astype(np.uint8).tobytes())


def unpack(text: str, shape: tuple[int, int, int]) -> np.ndarray:
    """What :func:`pack` was given, uint16 of ``shape`` (k, H, W); the same steps as in the page."""
    content = np.frombuffer(unpack_bytes(text), np.uint8).reshape(2, -1).astype(np.int32)
    code = content[0] + 256 * content[1]
    difference = ((code >> 1) ^ -(code & 1)).reshape(shape).tolist()
    planes = np.zeros(shape, np.uint16)
    for k, plane in enumerate(difference):
        above = [0] * (shape[2] + 1)
        for row, numbers in enumerate(plane):
            left, here = 0, [0]
            for column, number in enumerate(numbers):
                up, corner = above[column + 1], above[column]
                low, high = (left, up) if left < up else (up, left)
                left = (min(high, max(low, left + up - corner)) + number) & LARGEST
                here.append(left)
            above = [0, *here[1:]]
            planes[k, row] = here[1:]
    return planes


def pack_bytes(content: bytes) -> str:
    """Bytes as base64 of zlib."""
    return base64.b64encode(zlib.compress(content, 9)).decode()


def unpack_bytes(text: str) -> bytes:
    """What :func:`pack_bytes` was given."""
    return zlib.decompress(base64.b64decode(text))


__all__ = ["LARGEST", "pack", "pack_bytes", "to_steps", "unpack", "unpack_bytes"]
