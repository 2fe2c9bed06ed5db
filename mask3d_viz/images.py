"""From a frame, its masks and a prediction to pictures. Depth in metres in, uint8 (H, W, 3) out.

Holes (never measured) are light grey with rising stripes, hidden patches dark grey with falling stripes: the two are
never confused, and neither is told by colour alone. :func:`mask3d_viz.panels.reconstruction_panel` puts them together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mask3d_core.frames import IGNORE_LABEL
from mask3d_viz import style
from mask3d_viz.drawing import blank, color_bar, contact_sheet, paste, text_block
from mask3d_viz.pixels import (PictureError, Pixels, as_picture, cell_edges, grid_to_pixels, hatching,
                               patches_with_depth, save_png, to_numpy, to_png, with_grid)

__all__ = ["PictureError", "color_bar", "contact_sheet", "depth_image", "depth_range", "error_end", "error_image",
           "frame_limits", "label_image", "label_legend", "marks_legend", "masked_color_image", "masked_depth_image",
           "patches_with_depth", "save_png", "to_png", "where_never_measured", "with_grid"]

Limits = tuple[float, float]  # metres at the two ends of a colour map
UNKNOWN_RANGE: Limits = (0.5, 4.0)  # metres, where a frame measured nothing: a room
MARKS = {"hidden": "hidden from the model", "hole": "never measured", "guessed": "predicted where nothing was measured"}
"""What the hatchings of a picture mean, as its legend says it."""


class Marked(np.ndarray):
    """A picture, uint8 (H, W, 3), that knows which of ``MARKS`` are in it; whatever is computed from it does not.

    A :class:`~mask3d_viz.widgets.patch_image.PatchImage` that is given one puts their legend under itself.
    """

    marks: tuple[str, ...] = ()


def _marked(image: np.ndarray, **is_there: bool) -> Marked:
    """The picture with the marks that are there."""
    found = np.asarray(image).view(Marked)
    found.marks = tuple(name for name, is_in in is_there.items() if is_in)
    return found


def checked_depth(depth: Pixels, is_valid: Pixels | None, name: str = "depth") -> tuple[np.ndarray, np.ndarray]:
    """Depth as float32 (H, W) with 0 in the holes, and where it may be used.

    Args:
        depth: (H, W) metres.
        is_valid: bool (H, W); None: every pixel.
        name: what the error calls it.

    Raises:
        PictureError: shapes that differ, or a number that is not finite where it is said to be valid.
    """
    depth = to_numpy(depth)
    if depth.ndim != 2 or 0 in depth.shape:
        raise PictureError(f"{name} as (height, width) in metres", str(depth.shape), "Pass one frame at a time.")
    is_valid = np.ones(depth.shape, bool) if is_valid is None else to_numpy(is_valid)
    if is_valid.shape != depth.shape or is_valid.dtype != bool:
        raise PictureError(f"is_valid as bool {depth.shape}", f"{is_valid.dtype} {is_valid.shape}",
                           f"Pass True where {name} was measured, one value per pixel.")
    depth = np.where(is_valid, depth, 0).astype(np.float32)
    if not np.isfinite(depth).all():
        raise PictureError(f"finite {name} where it is valid", f"{int((~np.isfinite(depth)).sum())} NaN or infinite",
                           "Set is_valid to False there, or look for the step at which the model broke.")
    return depth, is_valid


def depth_range(depth: Pixels, is_valid: Pixels | None = None, *others: Pixels,
                percentiles: tuple[float, float] = (1.0, 99.0)) -> Limits:
    """One metric range for truth, prediction and cloud, so that equal colours mean equal metres.

    Args:
        depth: (H, W) metres, as a rule the truth.
        is_valid: bool (H, W); only these pixels of ``depth`` count.
        others: further depths (H, W), every pixel of which counts (predictions).
        percentiles: of the pixels, so that one outlier at 65 m does not make the room one colour.

    Returns:
        (near, far) in metres, at least 0.1 m apart; (0, 1) where there is no pixel at all, since then every
        picture is hatched.
    """
    depth, is_valid = checked_depth(depth, is_valid)
    values = np.concatenate([depth[is_valid], *(checked_depth(other, None)[0].ravel() for other in others)])
    if values.size == 0:
        return 0.0, 1.0
    near, far = (float(v) for v in np.percentile(values, percentiles))
    spare = max(0.0, 0.1 - (far - near)) / 2
    return near - spare, far + spare


def frame_limits(depth: Pixels, is_valid: Pixels) -> Limits:
    """(near, far) metres of all pictures of a frame: its :func:`depth_range`, a room's where nothing was measured.

    Args: as :func:`depth_range`.
    """
    return depth_range(depth, is_valid) if to_numpy(is_valid).any() else UNKNOWN_RANGE


def depth_image(depth: Pixels, is_valid: Pixels | None = None, limits: Limits | None = None,
                colormap: str = "inferno_r") -> np.ndarray:
    """Depth in colour, holes hatched.

    Args:
        depth: (H, W) metres.
        is_valid: bool (H, W); None: every pixel is drawn.
        limits: (near, far) metres at the ends of the colours; by default :func:`depth_range`.
        colormap: one of ``style.DEPTH_COLORMAPS``.

    Returns:
        uint8 (H, W, 3), :class:`Marked`.
    """
    depth, is_valid = checked_depth(depth, is_valid)
    near, far = checked_limits(depth_range(depth, is_valid) if limits is None else limits)
    if colormap not in style.DEPTH_COLORMAPS:
        raise PictureError(f"a depth colour map among {', '.join(style.DEPTH_COLORMAPS)}", repr(colormap),
                           "Choose one of them.")
    image = style.apply_colormap(depth, near, far, colormap)
    image = np.where(is_valid[..., None], image, hatching(depth.shape, style.HOLE_COLORS))
    return _marked(image, hole=not is_valid.all())


def checked_limits(limits: Limits) -> Limits:
    """The limits, if they are two finite numbers in order."""
    low, high = (float(v) for v in limits)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise PictureError("limits (low, high) in metres with low < high", f"({low:g}, {high:g})",
                           "Take them from depth_range.")
    return low, high


def _hidden(image: np.ndarray, is_masked: np.ndarray, has_holes: bool = False) -> Marked:
    """Draw the hidden patches over a picture: dark, hatched, each with its outline so that they can be counted."""
    size = image.shape[:2]
    cover = hatching(size, style.HIDDEN_COLORS, rising=False)
    if min(np.diff(cell_edges(length, cells)).min() for length, cells in zip(size, is_masked.shape)) >= 6:
        cover = with_grid(cover, is_masked.shape, color=(205, 207, 210), opacity=0.4)
    image = np.where(grid_to_pixels(is_masked, size)[..., None], cover, image)
    return _marked(image, hidden=bool(is_masked.any()), hole=has_holes)


def _checked_mask(is_masked: Pixels) -> np.ndarray:
    is_masked = to_numpy(is_masked)
    if is_masked.ndim != 2 or is_masked.dtype != bool:
        raise PictureError("is_masked as bool (rows, columns) of patches, True = hidden",
                           f"{is_masked.dtype} {is_masked.shape}", "Reshape the flat mask to the grid.")
    return is_masked


def masked_color_image(color: Pixels, is_masked: Pixels) -> np.ndarray:
    """What the colour encoder sees: hidden patches grey and hatched.

    Args:
        color: uint8 or float 0..1, (H, W, 3).
        is_masked: bool (rows, columns), True = hidden. The image need not be a multiple of the grid.
    """
    return _hidden(as_picture(color), _checked_mask(is_masked))


def masked_depth_image(depth: Pixels, is_valid: Pixels, is_masked: Pixels, limits: Limits | None = None,
                       colormap: str = "inferno_r") -> np.ndarray:
    """What the depth encoder sees: hidden patches grey and hatched, holes hatched the other way.

    A patch in which nothing was measured is drawn as a hole whatever the mask says: it is never visible, and hiding
    it hides nothing.

    Args: as :func:`depth_image` and :func:`masked_color_image`.
    """
    is_masked = _checked_mask(is_masked)
    image = depth_image(depth, is_valid, limits, colormap)
    return _hidden(image, is_masked & patches_with_depth(is_valid, is_masked.shape), "hole" in image.marks)


def error_end(limits: Limits) -> float:
    """The end of every scale of errors: it does not move with the prediction, so that two of them can be compared.

    A tenth of the depth range, in round numbers; the same on the screen, in a still, in a film and on the living page.

    Args:
        limits: (near, far) metres of the frame's pictures.

    Returns:
        metres, at least 0.05, in steps of 0.05.
    """
    near, far = checked_limits(limits)
    return max(0.05, round(round(0.1 * (far - near) / 0.05) * 0.05, 6))


def where_never_measured(image: np.ndarray, is_valid: Pixels) -> np.ndarray:
    """A predicted picture, pale pink with dark stripes over the sensor's holes: no depth has such a colour.

    Args:
        image: uint8 (H, W, 3). is_valid: bool (H, W).

    Returns:
        uint8 (H, W, 3), :class:`Marked`.
    """
    hole = ~to_numpy(is_valid).astype(bool)
    cover = hatching(hole.shape, style.GUESSED_COLORS)
    mixed = np.rint((1 - style.GUESSED_SHARE) * np.asarray(image) + style.GUESSED_SHARE * cover).astype(np.uint8)
    return _marked(np.where(hole[..., None], mixed, image), guessed=bool(hole.any()))


def signed_error(prediction: Pixels, truth: Pixels, is_valid: Pixels) -> tuple[np.ndarray, np.ndarray]:
    """Prediction minus truth in metres, 0 where there is no truth, and where there is one."""
    truth, is_valid = checked_depth(truth, is_valid, "truth")
    prediction, _ = checked_depth(prediction, None, "the prediction")
    if prediction.shape != truth.shape:
        raise PictureError(f"a prediction of the truth's size {truth.shape}", str(prediction.shape),
                           "Resize the truth by nearest neighbour to the prediction's size.")
    return np.where(is_valid, prediction - truth, np.float32(0)), is_valid


def error_image(prediction: Pixels, truth: Pixels, is_valid: Pixels, limit: float | None = None) -> np.ndarray:
    """Signed error: red where predicted too far, blue where too near, white where right; holes hatched, not scored.

    Args:
        prediction, truth: (H, W) metres.
        is_valid: bool (H, W), where truth was measured.
        limit: metres at the two ends, symmetric about 0; by default the :func:`error_end` of the truth's range.

    Returns:
        uint8 (H, W, 3).
    """
    error, is_valid = signed_error(prediction, truth, is_valid)
    limit = error_end(frame_limits(truth, is_valid)) if limit is None else float(limit)
    low, high = checked_limits((-limit, limit))
    image = style.apply_colormap(error, low, high, style.ERROR_COLORMAP)
    image = np.where(is_valid[..., None], image, hatching(error.shape, style.HOLE_COLORS))
    return _marked(image, hole=not is_valid.all())


def label_image(labels: Pixels, color: Pixels | None = None, *, opacity: float = 0.65,
                colors: np.ndarray | None = None) -> np.ndarray:
    """Class ids in colour, over the picture if one is given; ``IGNORE_LABEL`` is hatched.

    Args:
        labels: integers (H, W).
        color: the picture under them, (H, W, 3).
        opacity: of the labels over the picture, 0..1.
        colors: uint8 (classes, 3); by default ``style.label_colors``.
    """
    labels = to_numpy(labels)
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        raise PictureError("labels as integers (height, width)", f"{labels.dtype} {labels.shape}",
                           "Take the argmax over the classes first.")
    is_ignored = labels == IGNORE_LABEL
    known = np.where(is_ignored, 0, labels).astype(np.int64)
    colors = style.label_colors(max(13, int(known.max()) + 1)) if colors is None else np.asarray(colors, np.uint8)
    if known.min() < 0 or known.max() >= len(colors):
        raise PictureError(f"class ids in 0..{len(colors) - 1} or {IGNORE_LABEL}", f"{known.min()}..{known.max()}",
                           "Pass a colour for every class.")
    image = colors[known]
    if color is not None:
        below = as_picture(color)
        if below.shape[:2] != labels.shape:
            raise PictureError(f"a picture of the labels' size {labels.shape}", str(below.shape[:2]),
                               "Resize the labels by nearest neighbour.")
        image = np.rint(image * opacity + below * (1 - opacity)).astype(np.uint8)
    return np.where(is_ignored[..., None], hatching(labels.shape, style.HOLE_COLORS), image)


def label_legend(names: Sequence[str], width: int, *, colors: np.ndarray | None = None, font_size: int = 16,
                 theme: str = "light") -> np.ndarray:
    """Which colour is which class: swatches with names, as many to a row as fit.

    Returns:
        uint8 (H, width, 3).
    """
    colors = style.label_colors(len(names)) if colors is None else np.asarray(colors, np.uint8)
    size = max(font_size, style.SMALLEST_FONT)
    return legend(list(zip(names, (np.broadcast_to(c, (size, size, 3)) for c in colors))), width, size, theme)


def marks_legend(marks: Sequence[str], width: int, font_size: int = 16, theme: str = "light") -> np.ndarray:
    """What the hatchings of a picture mean: uint8 (H, width, 3).

    Args:
        marks: some of ``MARKS``.
    """
    box, guess = (font_size, 2 * font_size), style.colormap(style.DEPTH_COLORMAPS[0])[128]
    swatch = {"hidden": lambda: hatching(box, style.HIDDEN_COLORS, rising=False),
              "hole": lambda: hatching(box, style.HOLE_COLORS),
              "guessed": lambda: where_never_measured(np.broadcast_to(guess, (*box, 3)), np.zeros(box, bool))}
    return legend([(MARKS[name], swatch[name]()) for name in marks], width, font_size, theme)


def legend(entries: Sequence[tuple[str, np.ndarray]], width: int, font_size: int, theme: str) -> np.ndarray:
    """Small pictures, each followed by its name, in rows of at most ``width`` pixels."""
    step, left, top, cells = round(1.7 * font_size), 0, 0, []
    for name, swatch in entries:
        wide = swatch.shape[1] + round(font_size * 0.5) + math.ceil(style.font(font_size).getlength(name))
        if left and left + wide > width:
            left, top = 0, top + step
        cells.append((name, swatch, top, left))
        left += wide + round(1.4 * font_size)
    sheet = blank((top + step, width), theme)
    for name, swatch, top, left in cells:
        paste(sheet, swatch[:, :max(0, width - left)], top + (step - swatch.shape[0]) // 2, left)
        start = left + swatch.shape[1] + round(font_size * 0.5)
        text = text_block(name, max(1, width - start), font_size, theme=theme)[:step]
        paste(sheet, text, top + (step - text.shape[0]) // 2, start)
    return sheet
