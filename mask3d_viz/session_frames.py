"""A session's frames: by number with a name each, and what one looks like in a few numbers, to know a recording again."""

from __future__ import annotations

from typing import Any

import numpy as np

from mask3d_core.errors import ConfigError
from mask3d_core.frames import RGBDFrame

CELLS = (3, 4)  # rows and columns
COLOR_APART, DEPTH_APART = 3.0, 0.02  # levels of 255, metres or share of the depth: no more between two machines


class FrameList:
    """Frames by number with a name each: a source, a store, or a list in memory.

    Args:
        frames: a ``Source`` (or store), or a sequence of RGBDFrames.
        limit: at most this many, evenly spread; 0 = all.
    """

    def __init__(self, frames: Any, limit: int = 0):
        count = len(frames)
        if not count:
            raise ConfigError("a session needs at least one frame")
        self._frames = frames
        self.places = np.arange(count) if not limit or count <= limit else np.linspace(0, count - 1, limit).round().astype(int)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: int) -> RGBDFrame:
        place = int(self.places[number])
        return self._frames.read(place) if hasattr(self._frames, "read") else self._frames[place]

    def name(self, number: int) -> str:
        """Sequence and name, without reading the frame where the source knows it."""
        place = int(self.places[number])
        if hasattr(self._frames, "frame_name"):
            return f"{self._frames.sequence(place)}/{self._frames.frame_name(place)}"
        return str(self._frames[place].origin or place)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the semantic labels, where the source has them."""
        return tuple(getattr(self._frames, "class_names", ()))

    def look(self, number: int) -> list[list[float]]:
        """What a frame looks like, roughly, to tell it from another recording's of the same name; see :func:`look_of`."""
        return look_of(self[number])


def look_of(frame: RGBDFrame) -> list[list[float]]:
    """Mean colour and depth over a coarse grid: frames of one name in two recordings differ in it.

    No hash of the bytes: a room that is rendered, or a JPEG that is decoded, on another machine differs in the last bit.

    Args:
        frame: at its own size, at least 3 x 4 pixels.

    Returns:
        Per cell, row by row: mean red, green and blue (0..255) and mean measured depth in metres, 0 where there is none.
    """
    rows, columns = (np.linspace(0, length, cells + 1).round().astype(int) for length, cells in zip(frame.color.shape[:2], CELLS))
    cells = [np.s_[top:bottom, left:right] for top, bottom in zip(rows, rows[1:]) for left, right in zip(columns, columns[1:])]
    means = []
    for cell in cells:
        measured = frame.depth[cell][frame.is_valid[cell]]
        means.append([*(round(float(level), 1) for level in frame.color[cell].reshape(-1, 3).mean(0)),
                      round(float(measured.mean()), 3) if measured.size else 0.0])
    return means


def is_alike(look: Any, other: list[list[float]]) -> bool:
    """Whether two looks are of the same frame; anything that is no look is not."""
    try:
        first, second = np.asarray(look, float), np.asarray(other, float)
    except (TypeError, ValueError):
        return False
    if first.shape != second.shape or not np.isfinite(first).all():
        return False
    apart = np.abs(first - second)
    return bool((apart[:, :3] <= COLOR_APART).all()
                and (apart[:, 3] <= DEPTH_APART * np.maximum(1.0, second[:, 3])).all())


__all__ = ["FrameList", "is_alike", "look_of"]
