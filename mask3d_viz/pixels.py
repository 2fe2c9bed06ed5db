"""Pixels: what may come in, hatching, patch grids, resizing, PNG out."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from torch import Tensor

from mask3d_core.errors import Mask3DError

Pixels = np.ndarray | Tensor  # what every public function accepts; pictures go out as numpy


class PictureError(Mask3DError):
    """A picture cannot be drawn from what came."""


def to_numpy(values: Pixels) -> np.ndarray:
    """A tensor on any device, or an array, as a numpy array (shared memory where possible)."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        return (values.float() if values.is_floating_point() else values).numpy()
    return np.asarray(values)


def as_picture(color: Pixels) -> np.ndarray:
    """Colour as uint8 (H, W, 3).

    Args:
        color: uint8 0..255 or float 0..1, (H, W, 3).

    Raises:
        PictureError: another shape, dtype or range.
    """
    color = to_numpy(color)
    if color.ndim != 3 or color.shape[2] != 3 or 0 in color.shape:
        raise PictureError("colour as (height, width, 3)", str(color.shape), "Move the channels last.")
    if color.dtype == np.uint8:
        return color
    if not np.issubdtype(color.dtype, np.floating):
        raise PictureError("colour as uint8 or as float in 0..1", str(color.dtype), "Convert it.")
    low, high = float(color.min()), float(color.max())
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise PictureError("float colour in 0..1", f"{low:g}..{high:g}",
                           "Undo the encoder's mean and std, or pass uint8.")
    return np.rint(np.clip(color, 0, 1) * 255).astype(np.uint8)


def hatching(size: tuple[int, int], colors: tuple[tuple[int, int, int], tuple[int, int, int]], *, rising: bool = True,
             period: int = 8) -> np.ndarray:
    """Diagonal stripes.

    Args:
        size: (height, width).
        colors: ground and stripe.
        rising: stripes run like "/"; False: like a backslash.
        period: pixels from stripe to stripe.

    Returns:
        uint8 (H, W, 3).
    """
    rows, columns = np.arange(size[0])[:, None], np.arange(size[1])[None, :]
    phase = (rows + columns if rising else rows - columns) % period
    ground, stripe = np.array(colors[0], np.float32), np.array(colors[1], np.float32)
    strength = np.zeros(period, np.float32)
    strength[:2] = 1.0
    if period >= 6:
        strength[[2, -1]] = 0.45  # a soft border, or the stripes look like stairs
    table = np.rint(ground + strength[:, None] * (stripe - ground)).astype(np.uint8)
    return table[phase]


def cell_edges(length: int, cells: int) -> np.ndarray:
    """Where ``cells`` equal cells begin and end along ``length`` pixels: int (cells + 1,).

    Raises:
        PictureError: fewer pixels than cells.
    """
    if not 1 <= cells <= length:
        raise PictureError(f"between 1 and {length} cells along {length} pixels", str(cells),
                           "Pass the grid as (rows, columns) of patches of this image.")
    return np.rint(np.arange(cells + 1) * (length / cells)).astype(np.intp)


def grid_to_pixels(grid: Pixels, size: tuple[int, int]) -> np.ndarray:
    """Each patch's value at each of its pixels: (rows, columns) to (height, width)."""
    grid = to_numpy(grid)
    if grid.ndim != 2:
        raise PictureError("a patch grid as (rows, columns)", str(grid.shape), "Reshape the flat list of patches.")
    tall = np.repeat(grid, np.diff(cell_edges(size[0], grid.shape[0])), axis=0)
    return np.repeat(tall, np.diff(cell_edges(size[1], grid.shape[1])), axis=1)


def cut_patches(values: Pixels, grid: tuple[int, int]) -> np.ndarray:
    """A picture's pixels patch by patch: (height, width) to (rows, columns, pixels of a patch).

    Args:
        values: of any kind, (height, width); the grid divides it evenly.
        grid: (rows, columns).

    Raises:
        PictureError: the grid does not divide the picture.
    """
    values, (rows, columns) = to_numpy(values), grid
    if values.ndim != 2 or values.shape[0] % rows or values.shape[1] % columns:
        raise PictureError(f"a picture that {rows} x {columns} patches divide evenly", str(values.shape), "Fit the frame first.")
    tall, wide = values.shape[0] // rows, values.shape[1] // columns
    return values.reshape(rows, tall, columns, wide).swapaxes(1, 2).reshape(rows, columns, tall * wide)


def patch_means(values: Pixels, is_counted: Pixels, grid: tuple[int, int]) -> np.ndarray:
    """Each patch's mean over its counted pixels.

    Args:
        values: (height, width); what is not counted may be NaN. is_counted: bool (height, width).
        grid: (rows, columns).

    Returns:
        float32 (rows, columns), NaN where a patch has no counted pixel.
    """
    is_counted = cut_patches(is_counted, grid)
    count, total = is_counted.sum(-1), np.where(is_counted, cut_patches(values, grid), 0.0).sum(-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


def patches_with_depth(is_valid: Pixels, grid: tuple[int, int]) -> np.ndarray:
    """bool (rows, columns): the patches that hold at least one measured pixel; only these count in a ratio."""
    is_valid = to_numpy(is_valid)
    rows, columns = (cell_edges(length, cells)[:-1] for length, cells in zip(is_valid.shape, grid))
    return np.logical_or.reduceat(np.logical_or.reduceat(is_valid, rows, axis=0), columns, axis=1)


def with_grid(image: np.ndarray, grid: tuple[int, int], color: tuple[int, int, int] = (255, 255, 255),
              opacity: float = 0.35) -> np.ndarray:
    """The picture with thin lines between its patches.

    Args:
        image: uint8 (H, W, 3).
        grid: (rows, columns).
        opacity: of the lines, 0..1.
    """
    image = as_picture(image)
    is_line = np.zeros(image.shape[:2], bool)
    is_line[cell_edges(image.shape[0], grid[0])[1:-1]] = True
    is_line[:, cell_edges(image.shape[1], grid[1])[1:-1]] = True
    drawn = image.copy()
    drawn[is_line] = np.rint(image[is_line] * (1 - opacity) + np.array(color) * opacity).astype(np.uint8)
    return drawn


def patch_words(patch: int, grid: tuple[int, int]) -> str:
    """How a reader is told which patch it is: "row 9, column 11", counted from 1.

    Args:
        patch: number, row by row from 0.
        grid: (rows, columns) of patches.
    """
    row, column = divmod(int(patch), grid[1])
    return f"row {row + 1}, column {column + 1}"


def resize_nearest(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Nearest neighbour to (height, width): depth, labels and masks are never averaged."""
    rows = (np.arange(size[0]) * picture.shape[0] + picture.shape[0] // 2) // size[0]
    columns = (np.arange(size[1]) * picture.shape[1] + picture.shape[1] // 2) // size[1]
    rows, columns = np.minimum(rows, picture.shape[0] - 1), np.minimum(columns, picture.shape[1] - 1)
    return picture[rows][:, columns]


def resize_smooth(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A colour picture to (height, width) with Lanczos' filter."""
    from PIL import Image

    if picture.shape[:2] == tuple(size):
        return picture
    image = Image.fromarray(np.ascontiguousarray(picture))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.LANCZOS))


def to_png(image: Pixels) -> bytes:
    """A picture as PNG bytes, without time stamps: equal pictures give equal bytes."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(as_picture(image))).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def save_png(image: Pixels, path: str | Path) -> Path:
    """Write a picture as PNG; a reader never sees half a file.

    Returns:
        The path written.
    """
    return write_whole(path, to_png(image))


def write_whole(path: str | Path, content: bytes) -> Path:
    """Write a file beside its place and move it there in one step; folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        unfinished.write_bytes(content)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path
