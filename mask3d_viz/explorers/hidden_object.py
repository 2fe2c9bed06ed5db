"""An object whose depth was hidden by hand: does colour alone bring it back? Measured over its pixels, and said in a line."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mask3d_core.evaluation import OPPONENTS
from mask3d_core.masking import to_pixels
from mask3d_viz.objects_view import outlined
from mask3d_viz.predictions import Predictions, Shown
from mask3d_viz.ratio_view import OPPONENT_WORDS
from mask3d_viz.worker import Worker

SPLINE = "linear"
CACHED = 64


class Errors(NamedTuple):
    """Mean error over an object's measured pixels, in metres.

    own, grey: mean |error| of the prediction with its own colour and with grey. signed: mean error with its own colour,
    above 0 = too far. spline: mean |error| of the spline through the visible depth, or None where none is visible.
    pixels: how many count.
    """

    own: float
    grey: float
    signed: float
    spline: float | None
    pixels: int


def object_errors(predictions: Predictions, pixels: np.ndarray) -> tuple[Errors | None, tuple]:
    """What the state's prediction makes of an object.

    Args:
        predictions: of a session; those that are needed are made and remembered.
        pixels: the object's, bool (H, W) at the model's size.

    Returns:
        The errors, None where none of its pixels was measured; and what frame and masks they are of.

    Raises:
        ConfigError: there is no prediction.
    """
    own, grey = (predictions.now(judge=False, color_source=source) for source in ("own", "grey"))
    of, r, seen = own.key[:4], own.reconstruction, own.seen
    counted = pixels & r.is_valid
    if of != grey.key[:4] or not counted.any():
        return None, of
    off = lambda depth: float(np.abs(depth - r.depth)[counted].mean())  # noqa: E731
    config, batch = seen.model.config, seen.frame
    known = batch.is_valid & ~to_pixels(seen.masks.depth, config.grid, config.patch)
    spline = None
    if known.any():
        visible = ~to_pixels(seen.masks.rgb, config.grid, config.patch)
        spline = off(OPPONENTS[SPLINE](batch.depth, known, seen.color, visible)[0].numpy())
    signed = float((r.prediction - r.depth)[counted].mean())
    return Errors(off(r.prediction), off(grey.reconstruction.prediction), signed, spline, int(counted.sum())), of


def errors_words(name: str, errors: Errors | None) -> str:
    """The errors in a line.

    Args:
        name: of the object, "chair".
        errors: None: none of its pixels was measured.
    """
    if errors is None:
        return f"The {name}: none of its pixels was measured, so nothing says whether it came back."
    spline = ("no depth is visible for a spline" if errors.spline is None
              else f"{OPPONENT_WORDS[SPLINE]}: {100 * errors.spline:.1f} cm")
    return (f"The {name}, its depth hidden: predicted {100 * errors.own:.1f} cm off with its own colour "
            f"({100 * errors.signed:+.1f} cm on average, + = too far), {100 * errors.grey:.1f} cm with grey colour; {spline}. "
            f"Mean |error| over its {errors.pixels:,} measured pixels.")


class HiddenObject:
    """The object of a session's frame whose depth is hidden by hand, and the line about it.

    Args:
        predictions: of the session.
        say: called with the line; "" where no object is hidden.
    """

    def __init__(self, predictions: Predictions, say: Callable[[str], None]):
        self.predictions, self.session, self.worker, self._say = predictions, predictions.session, Worker(), say
        self.pixels: np.ndarray | None = None
        self.name = ""
        self._known: OrderedDict[tuple, Errors | None] = OrderedDict()

    def look(self) -> bool:
        """Find the object anew; True where it is another one than before."""
        before, self.pixels = self.pixels, self.session.hidden_object()
        is_same = before is self.pixels or (before is not None and self.pixels is not None
                                            and np.array_equal(before, self.pixels))
        if not is_same:
            self.name = self._named()
            self._say("")
        return not is_same

    def _named(self) -> str:
        """What it is called: its class where the frame's source names classes."""
        semantic, names = self.session.batch().semantic, self.session.frames.class_names
        if self.pixels is None or semantic is None or not names:
            return "object"
        label = int(np.bincount(semantic[0].numpy()[self.pixels]).argmax())
        return {"objects": "object"}.get(names[label], names[label]) if label < len(names) else "object"

    def outlined(self, image: np.ndarray) -> np.ndarray:
        """A picture, uint8 (H, W, 3), with a line around the object, where one is hidden."""
        return image if self.pixels is None else outlined(image, self.pixels)

    def measure(self, shown: Shown) -> None:
        """Say how far off the object is; at once where that is known, else when it was measured beside the view.

        Args:
            shown: the prediction of the state as it is.
        """
        if self.pixels is None:
            return
        name, pixels, of = self.name, self.pixels, (shown.key[:4], self.pixels.tobytes())
        if of in self._known:
            return self._say(errors_words(name, self._known[of]))
        self._say(f"The {name}, its depth hidden: measuring with and without its colour ...")

        def done(found: tuple[Errors | None, tuple] | None, problem: BaseException | None) -> None:
            if problem is not None or found[1] != of[0]:
                return  # the state has moved on; its next prediction asks again
            self._known[of] = found[0]
            while len(self._known) > CACHED:
                self._known.popitem(last=False)
            if self.pixels is not None and np.array_equal(self.pixels, pixels):
                self._say(errors_words(name, found[0]))

        self.worker.ask(lambda: object_errors(self.predictions, pixels), done)

    def close(self) -> None:
        """End the worker."""
        self.worker.close()


__all__ = ["Errors", "HiddenObject", "errors_words", "object_errors"]
