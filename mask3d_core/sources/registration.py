"""Two cameras on one rig: the colour and the labels of one, brought onto the pixel grid of the depth camera.

A depth pixel is unprojected through the depth camera, moved into the colour camera and projected there; the colour is
read at that place. Depth stays as it was measured. What the depth camera sees past an edge that hides it from the
colour camera takes the colour of that edge: no visibility test is made (in ScanNet both cameras coincide).
"""

from __future__ import annotations

import numpy as np

from mask3d_core.frames import Intrinsics


def color_positions(depth: np.ndarray, depth_camera: Intrinsics, color_camera: Intrinsics,
                    motion: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Where each depth pixel falls in the colour picture.

    Args:
        depth: float32 (h, w) metres, 0 where not measured. With two cameras in one place only its shape matters.
        depth_camera: of the depth picture.
        color_camera: of the colour picture.
        motion: (4, 4), from the depth camera's frame to the colour camera's; None: both cameras are in one place.
            Pixels without depth are then taken at the median distance of the others; without any, at infinity.

    Returns:
        rows and columns in pixels of the colour picture (centres on integers), not rounded, also outside of it; their
        shapes broadcast to (h, w). NaN behind the colour camera.
    """
    height, width = depth.shape
    x = (np.arange(width)[None, :] - depth_camera.cx) / depth_camera.fx
    y = (np.arange(height)[:, None] - depth_camera.cy) / depth_camera.fy
    if motion is not None:
        x, y = _seen_from(motion, x, y, depth)
    return y * color_camera.fy + color_camera.cy, x * color_camera.fx + color_camera.cx


def _seen_from(motion: np.ndarray, x: np.ndarray, y: np.ndarray, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x / z and y / z of the same points in the other camera's frame."""
    is_measured = depth > 0
    far = 1 / np.median(depth[is_measured]) if is_measured.any() else 0.0
    nearness = np.full(depth.shape, far)
    np.divide(1.0, depth, out=nearness, where=is_measured)
    moved_x, moved_y, moved_z = (row[0] * x + row[1] * y + row[2] + row[3] * nearness for row in motion[:3])
    is_behind = moved_z <= 1e-6
    moved_z = np.where(is_behind, 1.0, moved_z)
    return np.where(is_behind, np.nan, moved_x / moved_z), np.where(is_behind, np.nan, moved_y / moved_z)


def seen_pixels(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, ...], step: float) -> np.ndarray:
    """Which depth pixels the colour camera sees: those whose own area touches the colour picture.

    Args:
        rows, columns: as from :func:`color_positions`.
        shape: (H, W, ...) of the colour picture.
        step: colour pixels from one depth pixel to the next.

    Returns:
        bool (h, w).
    """
    edge = 0.5 + step / 2
    with np.errstate(invalid="ignore"):
        return ((rows > -edge) & (rows < shape[0] - 1 + edge)) & ((columns > -edge) & (columns < shape[1] - 1 + edge))


def sample_color(color: np.ndarray, rows: np.ndarray, columns: np.ndarray, step: float) -> np.ndarray:
    """The colour at those places: bilinear, after averaging over blocks where the colour picture is the finer one.

    Args:
        color: uint8 (H, W, 3).
        rows, columns: as from :func:`color_positions`; places outside take the nearest edge pixel.
        step: colour pixels from one depth pixel to the next; blocks have the nearest whole size.

    Returns:
        uint8 (h, w, 3).
    """
    block = int(np.clip(round(step), 1, min(color.shape[:2])))
    picture = _averaged(color, block)
    rows, columns = ((np.nan_to_num(place) + 0.5) / block - 0.5 for place in (rows, columns))
    (top, bottom, down), (left, right, along) = _taps(rows, picture.shape[0]), _taps(columns, picture.shape[1])
    if rows.shape[1] == 1 and columns.shape[0] == 1:  # rows first, then columns: half the time
        upper = picture[top[:, 0]]
        tall = upper + (picture[bottom[:, 0]] - upper) * down[..., None]
        start = tall[:, left[0]]
        full = start + (tall[:, right[0]] - start) * along[..., None]
    else:
        upper = picture[top, left] * (1 - along[..., None]) + picture[top, right] * along[..., None]
        lower = picture[bottom, left] * (1 - along[..., None]) + picture[bottom, right] * along[..., None]
        full = upper + (lower - upper) * down[..., None]
    return (full + np.float32(0.5)).astype(np.uint8)


def sample_nearest(labels: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The label nearest to those places; places outside take the nearest edge pixel.

    Args:
        labels: (H, W).
        rows, columns: as from :func:`color_positions`, in pixels of the label picture.

    Returns:
        (h, w), of the labels' type.
    """
    nearest = [np.clip(np.floor(np.nan_to_num(place) + 0.5), 0, size - 1).astype(np.intp)
               for place, size in ((rows, labels.shape[0]), (columns, labels.shape[1]))]
    return labels[nearest[0], nearest[1]]


def _averaged(color: np.ndarray, block: int) -> np.ndarray:
    """float32 (H // block, W // block, 3): means over whole blocks; an incomplete last one is left out."""
    height, width = (size // block * block for size in color.shape[:2])
    if block == 1:
        return color.astype(np.float32)
    total = np.zeros((height // block, width // block, color.shape[2]), np.float32)
    for row in range(block):
        for column in range(block):
            total += color[row:height:block, column:width:block]
    total /= block * block
    return total


def _taps(place: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two pixels around each place, and the share of the second."""
    place = np.clip(place, 0, size - 1)
    low = np.minimum(np.floor(place), max(size - 2, 0)).astype(np.intp)
    return low, np.minimum(low + 1, size - 1), (place - low).astype(np.float32)
