"""A ratio map as colours, numbers and words, ready to be drawn in a browser or without one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mask3d_core.errors import ConfigError
from mask3d_core.evaluation.metrics import METRICS
from mask3d_core.evaluation.ratio_map import (MAP_METRICS, MODEL, NOTHING_HIDDEN, NOTHING_VISIBLE, SCORED, UNKNOWN, Place,
                                              RatioMap)
from mask3d_core.evaluation.statistics import Estimate
from mask3d_viz import style
from mask3d_viz.drawing import number, ticks_between

ERROR, DIFFERENCE = "error of Mask3D", "Mask3D minus best opponent"
MODES = (ERROR, DIFFERENCE)
KINDS = (UNKNOWN, SCORED, NOTHING_VISIBLE, NOTHING_HIDDEN)
AHEAD, BEHIND, LOSES = 0, 1, 2  # hatching of a cell
OPPONENT_WORDS = {
    "mean": "mean of the visible", "median": "median of the visible", "nearest": "nearest visible pixel",
    "linear": "spline in depth", "linear_inverse": "spline in 1/depth", "color_guided": "colour-guided spline",
    "mean map": "mean map of the training set"}
METRIC_WORDS = {"abs_rel": "AbsRel", "mae": "mean error, cm", "rmse": "RMSE, cm", "delta1": "share within 25 % (δ1)"}
_SCALE = {"abs_rel": (1.0, 3), "mae": (100.0, 1), "rmse": (100.0, 1), "delta1": (1.0, 3)}  # factor, digits
_LETTERS = dict(zip(OPPONENT_WORDS, "abcdefg"))


@dataclass(frozen=True)
class MapView:
    """A map ready to be drawn. Rows are depth ratios, ascending; whoever draws puts row 0 at the bottom.

    Args:
        colors: uint8 (rows, columns, 3); a cell not measured yet has its nearest measured neighbour's.
        kinds: uint8 (rows, columns), number in ``KINDS``.
        hatches: uint8 (rows, columns): 0, or 1 = the model is behind, 2 = it loses for sure.
        texts: what stands in each cell, row by row. marks: the best opponent's letter.
        readouts: what is said of each cell, lines broken by newlines.
        rows, columns: labels, per cent hidden.
        title, bar_label: text. palette: uint8 (256, 3). ticks: (place 0..1, text) on the colour bar.
        ends: what its two ends mean. legend: what letters and hatching mean.
    """

    colors: np.ndarray
    kinds: np.ndarray
    hatches: np.ndarray
    texts: list[str]
    marks: list[str]
    readouts: list[str]
    rows: list[str]
    columns: list[str]
    title: str
    bar_label: str
    palette: np.ndarray
    ticks: list[tuple[float, str]]
    ends: tuple[str, str]
    legend: str


def map_view(found: RatioMap, metric: str = "abs_rel", mode: str = ERROR) -> MapView:
    """Colours and words of a map.

    Args:
        found: complete or not.
        metric: one of ``MAP_METRICS``.
        mode: the error itself, or minus the best opponent's: blue where the model is better, red and hatched where worse.

    Raises:
        ConfigError: unknown metric or mode.
    """
    if metric not in MAP_METRICS or mode not in MODES:
        raise ConfigError(f"metric must be one of {', '.join(MAP_METRICS)} and mode one of {', '.join(MODES)}; got "
                          f"{metric!r} and {mode!r}")
    factor, digits = _SCALE[metric]
    size = (len(found.depth_ratios), len(found.rgb_ratios))
    kinds, hatches = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    values, differences = found.table(metric) * factor, np.full(size, np.nan)
    texts, marks, readouts, met = [""] * kinds.size, [""] * kinds.size, [""] * kinds.size, set()
    for place in np.ndindex(size):
        at, state, against = place[0] * size[1] + place[1], found.state(place), found.compare(place, metric)
        kinds[place] = KINDS.index(state)
        readouts[at] = readout(found, place, metric)
        if state == SCORED and against is not None:
            differences[place] = against.difference.mean * factor
            marks[at] = _LETTERS[against.best]
            met.add(against.best)
            if mode == DIFFERENCE:
                hatches[place] = AHEAD if against.is_ahead else (LOSES if against.is_sure else BEHIND)
    shown = values if mode == ERROR else differences
    for at, value in enumerate(shown.ravel()):
        if math.isfinite(value):
            texts[at] = number(value, digits) if mode == ERROR else two_digits(value, digits + 1)
    scale = _error_scale(shown, metric) if mode == ERROR else _difference_scale(shown, metric)
    shares, palette, ticks = scale
    colors = np.where(np.isfinite(shares)[..., None], palette[np.clip(np.nan_to_num(shares) * 255, 0, 255).astype(int)], 128)
    colors = _spread_to_unknown(colors.astype(np.uint8), np.isfinite(shares), kinds == KINDS.index(UNKNOWN))
    words = METRIC_WORDS[metric]
    is_better_low = METRICS[metric].lower_is_better
    legend = "; ".join([f"{_LETTERS[n]} {OPPONENT_WORDS[n]}" for n in OPPONENT_WORDS if n in met])
    title = f"{words}, {'lower' if is_better_low else 'higher'} is better" if mode == ERROR else f"{words}: {mode}"
    return MapView(colors, kinds, hatches, texts, marks, readouts, [f"{100 * r:.3g}" for r in found.depth_ratios],
                   [f"{100 * r:.3g}" for r in found.rgb_ratios], title, words, palette, ticks,
                   ("", "") if mode == ERROR else ("Mask3D better", "opponent better"),
                   f"Best opponent: {legend}." if legend else "")


def _error_scale(values: np.ndarray, metric: str) -> tuple[np.ndarray, np.ndarray, list[tuple[float, str]]]:
    """Shares 0..1 of viridis: by the logarithm for errors, which span a factor of ten or more; evenly for a share."""
    palette, known = style.colormap("viridis"), values[np.isfinite(values)]
    move = math.log if METRICS[metric].lower_is_better else float
    floor = 1e-6 if METRICS[metric].lower_is_better else -math.inf
    low, high = (max(float(known.min()), floor), max(float(known.max()), floor)) if known.size else (0.01, 1.0)
    if not move(low) < move(high):
        low, high = low * 0.9, max(high * 1.1, 1e-5)
    between = (lambda v: (move(v) - move(low)) / (move(high) - move(low)))  # noqa: E731
    wanted = ([m * 10.0 ** e for e in range(-6, 6) for m in (1, 2, 5)] if METRICS[metric].lower_is_better
              else ticks_between(low, high))
    ticks = [(between(v), f"{v:.3g}") for v in wanted if low <= v <= high]
    shares = np.array([between(max(v, floor)) if math.isfinite(v) else math.nan for v in values.ravel()])
    return shares.reshape(values.shape), palette, ticks


def _difference_scale(values: np.ndarray, metric: str) -> tuple[np.ndarray, np.ndarray, list[tuple[float, str]]]:
    """Shares 0..1 of the diverging map, 0 in its middle; always red where the model is worse."""
    palette = style.colormap(style.ERROR_COLORMAP)
    values = values if METRICS[metric].lower_is_better else -values  # a share that is higher is better
    known = np.abs(values[np.isfinite(values)])
    bound = max(float(np.percentile(known, 85)) if known.size else 0.0, 1e-4)
    power = 10.0 ** math.floor(math.log10(bound) + 1e-9)
    end = power * next(f for f in (1, 2, 3, 5, 10) if f * power >= bound * 0.999)
    sign = 1 if METRICS[metric].lower_is_better else -1
    ticks = [((v + end) / (2 * end), f"{sign * v:+.3g}".replace("-", "\N{MINUS SIGN}") if v else "0")
             for v in (-end, -end / 2, 0.0, end / 2, end)]
    return (values + end) / (2 * end), palette, ticks


def _spread_to_unknown(colors: np.ndarray, is_known: np.ndarray, is_unknown: np.ndarray) -> np.ndarray:
    """Cells not measured yet in the colour of the nearest that is."""
    known = np.argwhere(is_known)
    if len(known):
        for place in np.argwhere(is_unknown):
            colors[tuple(place)] = colors[tuple(known[np.square(known - place).sum(axis=1).argmin()])]
    return colors


# ---- words ----------------------------------------------------------------------------------------------------------


def percent(ratio: float) -> str:
    """ "95 %"."""
    return f"{100 * ratio:.3g} %"


def two_digits(value: float, most: int) -> str:
    """A signed number to two significant digits, with at most ``most`` decimals."""
    decimals = most if value == 0 else min(most, max(0, 1 - math.floor(math.log10(abs(value)))))
    return ("+" if value > 0 else "") + number(value, decimals)


def estimate_words(estimate: Estimate, metric: str, signed: bool = False) -> str:
    """A number with its interval in the unit that people read."""
    factor, digits = _SCALE[metric]
    digits += signed  # a difference is smaller

    def one(value: float) -> str:
        return ("+" if signed and value > 0 else "") + number(value * factor, digits)

    if not math.isfinite(estimate.mean):
        return "nothing to score"
    return one(estimate.mean) + ("" if estimate.low is None else f" [{one(estimate.low)}, {one(estimate.high)}]")


def readout(found: RatioMap, place: Place, metric: str) -> str:
    """What is said of a cell, a few lines."""
    rgb, depth = found.ratios(place)
    head, state = f"{percent(rgb)} of RGB and {percent(depth)} of depth hidden", found.state(place)
    if state != SCORED:
        return f"{head}\n" + {
            NOTHING_VISIBLE: "nothing is visible, so there is nothing to predict from",
            NOTHING_HIDDEN: "no measured depth is hidden, so there is nothing to score", UNKNOWN: "not measured yet"}[state]
    own, against = found.estimate(place, MODEL, metric), found.compare(place, metric)
    lines = [head, f"Mask3D: {METRIC_WORDS[metric]} {estimate_words(own, metric)}, {band_words(found, place, metric)}"]
    if against is None:
        return "\n".join([*lines, "no depth is visible and the checkpoint has no mean map: there is no opponent"])
    return "\n".join([*lines, f"best opponent: {OPPONENT_WORDS[against.best]} {estimate_words(against.opponent, metric)}",
                      f"difference {estimate_words(against.difference, metric, signed=True)}: Mask3D {against.words}"])


def band_words(found: RatioMap, place: Place, metric: str) -> str:
    """What the band beside a number is, and over how many frames."""
    frames, draws = len(found.frames), len(found.seeds)
    masks = f"{draws} masks" if draws > 1 else "1 mask"
    if found.estimate(place, MODEL, metric).low is not None:
        return f"95 % over {frames} frames with {masks} each"
    factor, digits = _SCALE[metric]
    low, high = (number(v * factor, digits) for v in found.mask_range(place, MODEL, metric))
    return f"{frames} frame{'s' if frames > 1 else ''}, {masks}" + (f" ({low} to {high})" if draws > 1 else "")


def summary(found: RatioMap, metric: str) -> str:
    """Where the model stands, in one or two sentences."""
    against = {place: found.compare(place, metric) for place in found.cells}
    against = {place: one for place, one in against.items() if one is not None}
    if not against:
        return "Nothing to compare yet."
    behind = [place for place, one in against.items() if not one.is_ahead]
    sure = [place for place in behind if against[place].is_sure]
    wins = sum(1 for one in against.values() if one.is_ahead and one.is_sure)
    text = f"Of {len(against)} cells, Mask3D is ahead of its best opponent in {len(against) - len(behind)}"
    has_interval = any(one.is_sure is not None for one in against.values())
    text += f" (in {wins} with an interval that excludes 0)" if has_interval else " (one frame, so no interval)"
    text += f" and behind in {len(behind)}" + (f" (in {len(sure)} for sure)" if has_interval and behind else "") + "."
    if behind:
        lower = METRICS[metric].lower_is_better
        worst = max(behind, key=lambda p: against[p].difference.mean * (1 if lower else -1))
        rgb, depth = found.ratios(worst)
        text += (f" Most behind: {percent(rgb)} of RGB and {percent(depth)} of depth hidden, "
                 f"{estimate_words(against[worst].difference, metric, signed=True)} against the "
                 f"{OPPONENT_WORDS[against[worst].best]}.")
    return text


def place_of(ratio: float, ratios: tuple[float, ...]) -> float:
    """Where a ratio lies on the axis, in cells from the first one's middle; between cells where it is none of them."""
    return float(np.interp(ratio, ratios, np.arange(len(ratios))))


def hatch_words(view: MapView) -> str:
    """What the hatching means, where there is any."""
    said = {BEHIND: "widely hatched: Mask3D is behind", LOSES: "densely hatched: it loses, the interval excludes 0"}
    words = "; ".join(words for hatch, words in said.items() if (view.hatches == hatch).any())
    return words[:1].upper() + words[1:] + ("." if words else "")


def ink_on(color) -> tuple[int, int, int]:
    """Black or white, whichever is read better on a colour (red, green, blue 0..255)."""
    return (20, 22, 26) if float(np.dot(np.asarray(color, float), (0.299, 0.587, 0.114))) > 140 else (255, 255, 255)


__all__ = ["AHEAD", "BEHIND", "DIFFERENCE", "ERROR", "KINDS", "LOSES", "METRIC_WORDS", "MODES", "OPPONENT_WORDS", "MapView",
           "band_words", "estimate_words", "hatch_words", "ink_on", "map_view", "percent", "place_of", "readout", "summary",
           "two_digits"]
