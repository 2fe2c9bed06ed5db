"""The picture that tells the whole story of one frame: what was seen, what was predicted, how wrong it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mask3d_viz import style
from mask3d_viz.drawing import blank, color_bar, number, paste, text_block
from mask3d_viz import images
from mask3d_viz.images import (Limits, checked_depth, depth_image, error_image, frame_limits, marks_legend,
                               masked_color_image, masked_depth_image, patches_with_depth, where_never_measured)
from mask3d_viz.pixels import PictureError, Pixels, as_picture, resize_nearest, resize_smooth, to_numpy

SCORE_NAMES = {"abs_rel": "AbsRel", "absrel": "AbsRel", "delta1": "δ1", "rmse": "RMSE", "mae": "MAE"}
SCORE_UNITS = {"RMSE": " m", "MAE": " m"}


@dataclass(frozen=True)
class Tile:
    """One picture of a panel with its heading and one line below."""

    image: np.ndarray
    heading: str
    caption: str


def scores_line(scores: Mapping[str, float] | None) -> str:
    """ "AbsRel 0.043, δ1 0.971": known scores with their usual names and units, others as they are called."""
    parts = []
    for key, value in (scores or {}).items():
        name = SCORE_NAMES.get(key.lower().replace(" ", "_"), key)
        parts.append(f"{name} {number(float(value), 3)}{SCORE_UNITS.get(name, '')}")
    return ", ".join(parts)


def reconstruction_panel(
    color: Pixels, depth: Pixels, is_valid: Pixels, prediction: Pixels, is_masked_color: Pixels,
    is_masked_depth: Pixels, *, is_pasted: bool, scores: Mapping[str, float] | None = None,
    scores_over: str = "hidden measured pixels", title: str = "", note: str = "", limits: Limits | None = None,
    error_end: float | None = None, colormap: str = "inferno_r", layout: str = "row", width: int = 1600,
    theme: str = "light",
) -> np.ndarray:
    """Colour seen, depth seen, prediction, truth and signed error, with one colour scale in metres for all depths.

    Args:
        color: uint8 or float 0..1, (H, W, 3).
        depth: (H, W) metres, the truth.
        is_valid: bool (H, W), where the sensor measured it. May be False everywhere.
        prediction: (H, W) metres.
        is_masked_color, is_masked_depth: bool (rows, columns), True = hidden from the encoder.
        is_pasted: whether ``prediction`` holds measured depth where patches were visible; the panel says so.
        scores: for example {"AbsRel": 0.043, "delta1": 0.97}, shown under the prediction.
        scores_over: which pixels the scores count; said under the panel.
        title: above the panel. note: a further sentence below.
        limits: (near, far) metres; by default :func:`~mask3d_viz.images.frame_limits` of the truth.
        error_end: metres at the ends of the error scale; by default :func:`~mask3d_viz.images.error_end` of the limits.
        colormap: one of ``style.DEPTH_COLORMAPS``.
        layout: "row" (five side by side: a page, a README) or "grid" (three by two: a projector).
        width: of the panel, pixels.
        theme: "light" or "dark".

    Returns:
        uint8 (height, width, 3).

    Raises:
        PictureError: sizes that do not fit each other, or an unknown layout.
    """
    if layout not in ("row", "grid"):
        raise PictureError("layout 'row' or 'grid'", repr(layout), "Choose one of them.")
    columns = 5 if layout == "row" else 3
    gap = max(4, round(width * (0.009 if layout == "row" else 0.012)))
    size = max(style.SMALLEST_FONT, round(width * (0.0125 if layout == "row" else 0.018)))
    tile_width = (width - (columns + 1) * gap) // columns
    tiles, limits, error_end = _tiles(color, depth, is_valid, prediction, to_numpy(is_masked_color),
                                      to_numpy(is_masked_depth), tile_width, limits, error_end, colormap,
                                      scores_line(scores))
    legend_width = width - 2 * gap if layout == "row" else tile_width
    below = _legend(limits, error_end, colormap, legend_width, size, theme, _marks(is_valid), side_by_side=layout == "row")
    said = ("Prediction: measured depth is pasted in where depth patches were visible."
            if is_pasted else "Prediction: the model's own depth at every pixel, no measured depth pasted in.")
    said += f" Scores over {scores_over}." if scores else ""
    footer = text_block(f"{said} {note}".strip(), width - 2 * gap, size, role="muted", theme=theme)
    top = text_block(title, width - 2 * gap, round(1.25 * size), bold=True, theme=theme)
    return _compose(tiles, columns, gap, size, top, below, footer, width, theme, legend_in_grid=layout == "grid")


def comparison_panel(
    color: Pixels, depth: Pixels, is_valid: Pixels, predictions: tuple[Pixels, Pixels], is_masked_color: Pixels,
    is_masked_depth: Pixels, *, names: tuple[str, str], is_pasted: bool,
    scores: tuple[Mapping[str, float], Mapping[str, float]] = ({}, {}), note: str = "", limits: Limits | None = None,
    error_end: float | None = None, colormap: str = "inferno_r", width: int = 1600, theme: str = "light",
) -> np.ndarray:
    """Two predictions of one frame under the same masks, with one scale of depth and one of error.

    Args:
        color, depth, is_valid, is_masked_color, is_masked_depth, limits, colormap, width, theme: as in
            :func:`reconstruction_panel`.
        predictions: (H, W) metres each, A's and B's. names: of the two.
        is_pasted: whether they hold measured depth where patches were visible.
        scores: of A and of B over the same pixels, shown under them. note: a further sentence below.
        error_end: as in :func:`reconstruction_panel`.

    Returns:
        uint8 (height, width, 3): colour seen, depth seen, both predictions; truth, both errors, scales.

    Raises:
        PictureError: sizes that do not fit each other.
    """
    gap, size = max(4, round(width * 0.012)), max(style.SMALLEST_FONT, round(width * 0.0125))
    tile_width = (width - 5 * gap) // 4
    masks = to_numpy(is_masked_color), to_numpy(is_masked_depth)
    both = []
    for prediction, one in zip(predictions, scores, strict=True):
        tiles, limits, error_end = _tiles(color, depth, is_valid, prediction, *masks, tile_width, limits, error_end, colormap,
                                          scores_line(one))
        both.append(tiles)
    named = [(Tile(tiles[2].image, f"Prediction of {name}", tiles[2].caption), Tile(tiles[4].image, f"Error of {name}",
                                                                                 tiles[4].caption))
             for tiles, name in zip(both, names, strict=True)]
    ordered = [*both[0][:2], named[0][0], named[1][0], both[0][3], named[0][1], named[1][1]]
    below = _legend(limits, error_end, colormap, tile_width, size, theme, _marks(is_valid), side_by_side=False)
    said = ("Measured depth is pasted into both predictions where depth patches were visible." if is_pasted
            else "Both predictions are the models' own depth at every pixel.")
    said += " Scores over the hidden measured pixels of A." if any(scores) else ""
    footer = text_block(f"{said} {note}".strip(), width - 2 * gap, size, role="muted", theme=theme)
    top = text_block("", width - 2 * gap, round(1.25 * size), bold=True, theme=theme)
    return _compose(ordered, 4, gap, size, top, below, footer, width, theme, legend_in_grid=True)


def _tiles(color, depth, is_valid, prediction, is_masked_color, is_masked_depth, width, limits, error_end, colormap,
           scores) -> tuple[list[Tile], Limits, float]:
    """The five pictures, drawn at the size at which they are shown, so that hatching and patch borders stay crisp."""
    color = as_picture(color)
    depth, is_valid = checked_depth(depth, is_valid)
    prediction, _ = checked_depth(prediction, None, "the prediction")
    if color.shape[:2] != depth.shape or prediction.shape != depth.shape:
        raise PictureError(f"colour and prediction of the depth's size {depth.shape}",
                           f"colour {color.shape[:2]}, prediction {prediction.shape}", "Resize the frame first.")
    if limits is None:
        limits = frame_limits(depth, is_valid)
    error_end = images.error_end(limits) if error_end is None else error_end
    is_measured = patches_with_depth(is_valid, is_masked_depth.shape)
    seen_color, seen_depth = int((~is_masked_color).sum()), int((~is_masked_depth & is_measured).sum())
    holes = 1 - is_valid.mean()

    size = (max(1, round(width * depth.shape[0] / depth.shape[1])), width)
    color, depth, is_valid, prediction = (resize_smooth(color, size), resize_nearest(depth, size),
                                          resize_nearest(is_valid, size), resize_nearest(prediction, size))
    tiles = [
        Tile(masked_color_image(color, is_masked_color), "RGB seen",
             f"{seen_color} of {is_masked_color.size} patches"),
        Tile(masked_depth_image(depth, is_valid, is_masked_depth, limits, colormap), "Depth seen",
             f"{seen_depth} of {int(is_measured.sum())} patches" if is_measured.any() else "nothing measured"),
        Tile(where_never_measured(depth_image(prediction, None, limits, colormap), is_valid), "Prediction", scores),
        Tile(depth_image(depth, is_valid, limits, colormap), "Truth",
             f"{100 * holes:.{0 if holes >= 0.01 else 2}f} % never measured" if holes else "measured everywhere"),
        Tile(error_image(prediction, depth, is_valid, error_end), "Error",
             "prediction \N{MINUS SIGN} truth" if is_valid.any() else "no truth to compare with"),
    ]
    return tiles, limits, error_end


def _marks(is_valid: Pixels) -> tuple[str, ...]:
    """What the legend explains; what was never measured only where there is such a pixel."""
    return ("hidden",) if to_numpy(is_valid).all() else ("hidden", "hole", "guessed")


def _legend(limits: Limits, error_end: float, colormap: str, width: int, size: int, theme: str, marks: tuple[str, ...],
            side_by_side: bool) -> np.ndarray:
    """The two scales in metres, and what the hatching means."""
    gap = 2 * size
    each = (width - gap) // 2 if side_by_side else width
    bars = [color_bar(limits, colormap, each, label="Depth in metres", font_size=size, theme=theme),
            color_bar((-error_end, error_end), style.ERROR_COLORMAP, each, label="Error in metres",
                      ends=("too near", "too far"), font_size=size, theme=theme)]
    keys = marks_legend(marks, width - round(1.6 * size), size, theme)
    bars_tall = bars[0].shape[0] if side_by_side else 2 * bars[0].shape[0] + size // 2
    sheet = blank((bars_tall + size // 2 + keys.shape[0], width), theme)
    paste(sheet, bars[0], 0, 0)
    paste(sheet, bars[1], *((0, each + gap) if side_by_side else (bars[0].shape[0] + size // 2, 0)))
    paste(sheet, keys, bars_tall + size // 2, round(1.6 * size))
    return sheet


def _compose(tiles: list[Tile], columns: int, gap: int, size: int, top: np.ndarray, below: np.ndarray,
             footer: np.ndarray, width: int, theme: str, legend_in_grid: bool) -> np.ndarray:
    """Headings over pictures over captions; the legend under them, or in the grid's last cell."""
    tall, wide = tiles[0].image.shape[:2]
    cells = []
    for tile in tiles:
        heading = text_block(tile.heading, wide, round(1.15 * size), bold=True, theme=theme)
        caption = text_block(tile.caption, wide, size, role="muted", theme=theme)
        cells.append((heading, tile.image, caption))
    head, foot = max(c[0].shape[0] for c in cells), max(c[2].shape[0] for c in cells)
    cell_tall = head + size // 3 + tall + size // 3 + foot + gap
    if legend_in_grid:
        cell_tall = max(cell_tall, below.shape[0] + gap)
    rows = -(-len(cells) // columns)
    under = 0 if legend_in_grid else below.shape[0] + gap
    first = gap + (top.shape[0] + gap if top.shape[0] else 0)
    sheet = blank((first + rows * cell_tall + under + footer.shape[0] + gap, width), theme)
    paste(sheet, top, gap, gap)
    for place, (heading, image, caption) in enumerate(cells):
        y, x = first + place // columns * cell_tall, gap + place % columns * (wide + gap)
        paste(sheet, heading, y, x)
        paste(sheet, image, y + head + size // 3, x)
        paste(sheet, caption, y + head + tall + 2 * (size // 3), x)
    bottom = first + rows * cell_tall
    if legend_in_grid:
        paste(sheet, below, bottom - cell_tall + (cell_tall - gap - below.shape[0]) // 2,
              gap + (columns - 1) * (wide + gap))
    else:
        paste(sheet, below, bottom, gap)
    paste(sheet, footer, bottom + under, gap)
    return sheet
