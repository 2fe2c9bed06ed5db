"""A film strip: pictures of the same frames at growing steps, scrubbed in the browser without a trip to the kernel."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets as t

from mask3d_viz.pixels import PictureError, Pixels, as_picture

HERE = Path(__file__).parent
NEWEST = -1  # a place that stays at the end as the film grows


class FilmStrip(anywidget.AnyWidget):
    """Tiles that stay beside tiles that change from step to step, a slider and a strip of small pictures.

    Make the pictures with :func:`film_picture`; put them in with :meth:`set_film`.
    """

    _esm = HERE / "film_strip.js"
    _css = HERE / "film_strip.css"

    label = t.Unicode("Film").tag(sync=True)
    titles = t.List(t.Unicode()).tag(sync=True)  # of the tiles, as they stand side by side
    is_changing = t.List(t.Bool()).tag(sync=True)  # per tile: it is in the film, not beside it
    size = t.Tuple(t.Int(), t.Int(), default_value=(0, 0)).tag(sync=True)  # (height, width) of a tile
    fixed = t.Bytes(b"").tag(sync=True)  # one picture of the tiles that stay, side by side
    film = t.Bytes(b"").tag(sync=True)  # all pictures of the tiles that change, one after the other
    lengths = t.List(t.Int()).tag(sync=True)  # bytes of each
    steps = t.List(t.Int()).tag(sync=True)
    captions = t.List(t.Unicode()).tag(sync=True)  # one per step
    place = t.Int(NEWEST, min=NEWEST).tag(sync=True)  # which is shown; -1: always the newest

    def set_film(self, steps: Sequence[int], pictures: Sequence[bytes], captions: Sequence[str]) -> None:
        """Show these, oldest first.

        Raises:
            PictureError: not as many steps as pictures and captions.
        """
        if not len(steps) == len(pictures) == len(captions):
            raise PictureError("a picture and a caption per step",
                               f"{len(steps)} steps, {len(pictures)} pictures, {len(captions)} captions", "Count again.")
        with self.hold_sync():
            self.steps, self.captions = list(steps), list(captions)
            self.lengths, self.film = [len(p) for p in pictures], b"".join(pictures)
            if self.place >= len(steps):
                self.place = NEWEST

    def take(self, film: Any) -> None:
        """Show another film whole, in one message; a strip that stood at its end stays at the end.

        Args:
            film: has size, fixed, titles, is_changing, steps, pictures and captions, as the traits mean them.
        """
        with self.hold_sync():
            self.size, self.fixed = film.size, film.fixed
            self.titles, self.is_changing = list(film.titles), list(film.is_changing)
            if self.place >= len(film.steps) - 1:
                self.place = NEWEST
            self.set_film(film.steps, film.pictures, film.captions)

    def tiles(self, place: int = NEWEST) -> dict[str, np.ndarray]:
        """What stands in the browser at one place: title to picture, uint8 (H, W, 3)."""
        ends = np.cumsum([0, *self.lengths])
        place = range(len(self.steps))[place]
        film, fixed = _cut(self.film[ends[place]:ends[place + 1]], self.size[1]), _cut(self.fixed, self.size[1])
        return {title: (film if is_moving else fixed).pop(0) for title, is_moving in zip(self.titles, self.is_changing)}


def _cut(jpeg: bytes, width: int) -> list[np.ndarray]:
    """The tiles of a :func:`film_picture`."""
    from PIL import Image

    picture = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))
    return [picture[:, left:left + width] for left in range(0, picture.shape[1], width)]


def film_picture(tiles: Sequence[Pixels]) -> bytes:
    """Tiles of one size, side by side, as a JPEG: to look at, not to measure."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.concatenate([as_picture(tile) for tile in tiles], axis=1)).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


__all__ = ["NEWEST", "FilmStrip", "film_picture"]
