"""A measured number and its interval, as text and as a row of a table or chart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from mask3d_viz.drawing import number
from mask3d_viz.pixels import PictureError


class Score(NamedTuple):
    """A measured number with its 95 % interval, or None where there is one scene and no interval."""

    value: float
    low: float | None = None
    high: float | None = None


def as_score(given: Any) -> Score:
    """A score from a number, (value, low, high), or a mapping with "value" or "mean", and "low"/"high" or "interval".

    Raises:
        PictureError: anything else, or a value outside of its own interval.
    """
    low = high = None
    if isinstance(given, Mapping) and ("value" in given or "mean" in given):
        value = given["value"] if "value" in given else given["mean"]
        low, high = given.get("interval") or (given.get("low"), given.get("high"))
    elif isinstance(given, (tuple, list)) and len(given) == 3:
        value, low, high = given
    elif isinstance(given, (int, float, np.number)):
        value = given
    else:
        raise PictureError("a number, (value, low, high) or a mapping with value, low, high", repr(given)[:80],
                           "Pass None for low and high where there is no interval.")
    if (low is None) != (high is None) or (low is not None and not low <= value <= high):
        raise PictureError("low <= value <= high", f"{low}, {value}, {high}", "Look at how the interval was made.")
    if value is None:  # nothing to score, as JSON says it
        return Score(float("nan"))
    return Score(float(value), None if low is None else float(low), None if high is None else float(high))


def score_text(score: Score, digits: int = 3) -> str:
    """ "0.043 [0.040, 0.046]"."""
    text = number(score.value, digits)
    return text if score.low is None else f"{text} [{number(score.low, digits)}, {number(score.high, digits)}]"
