"""What the readout under a picture says of a patch, the same in every view."""

from __future__ import annotations

from typing import NamedTuple

from mask3d_viz.pixels import Pixels, patch_words
from mask3d_viz.predictions import Shown
from mask3d_viz.widgets.patch_image import PatchImage


class Extra(NamedTuple):
    """A view's own number beside truth, prediction and error.

    values: float (rows, columns) or (patches,), NaN where there is none. unit: "cm". digits: behind the point.
    is_signed: whether a plus is written too.
    """

    values: Pixels
    unit: str = ""
    digits: int = 2
    is_signed: bool = False


def say_values(picture: PatchImage, shown: Shown | None, extra: dict[str, Extra] | None = None) -> None:
    """Let a picture's readout say of each patch: truth, prediction and its error, and the view's own numbers.

    Args:
        picture: whose grid is the prediction's.
        shown: the prediction, or None where there is none: then only ``extra`` is said.
        extra: name to the view's own numbers, said last.
    """
    values, units, digits, signed = {}, {}, {}, []
    if shown is not None:
        means = shown.patch_values()
        values = {"truth": means["truth"], "prediction": means["prediction"], "error": means["error"] * 100}
        units, digits, signed = {"truth": "m", "prediction": "m", "error": "cm"}, {"error": 1}, ["error"]
    for name, (numbers, unit, places, is_signed) in (extra or {}).items():
        values[name], units[name], digits[name] = numbers, unit, places
        signed += [name] * is_signed
    picture.set_values(values, units, digits=digits, signed=tuple(signed))


__all__ = ["Extra", "patch_words", "say_values"]
