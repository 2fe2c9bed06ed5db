"""What a notebook shows besides explorers: a picture as the last line of a cell."""

from __future__ import annotations

import numpy as np

from mask3d_viz.pixels import Pixels, as_picture, to_png


class Picture:
    """A picture that a notebook shows and stores as PNG.

    Args:
        image: uint8 or float 0..1, (H, W, 3).
        words: what it shows, for whoever cannot see it.
    """

    def __init__(self, image: Pixels, words: str = ""):
        self.image, self.words = as_picture(image), words

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        return f"Picture of {width} x {height} pixels{': ' + self.words if self.words else ''}"

    def _repr_png_(self) -> bytes:
        return to_png(self.image)


def picture(image: Pixels | list[np.ndarray], words: str = "") -> Picture:
    """Show a picture, or several of one height side by side; see :class:`Picture`."""
    if isinstance(image, list):
        image = np.concatenate([as_picture(each) for each in image], axis=1)
    return Picture(image, words)


__all__ = ["Picture", "picture"]
