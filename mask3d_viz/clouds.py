"""Point clouds as still pictures: which pixels become points, their colours, the camera, and a z-buffer splat.

Points are metres in the frame of the camera that measured them (x right, y down, z forward) unless the caller moved
them. Nothing here needs OpenGL, and equal input gives equal pixels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch

from mask3d_core.frames import Intrinsics
from mask3d_core.geometry import unproject
from mask3d_viz import style
from mask3d_viz.cameras import VIEWS, Camera, look_at, orbit_camera, view_camera
from mask3d_viz.drawing import contact_sheet
from mask3d_viz.images import checked_depth
from mask3d_viz.pixels import PictureError, Pixels, as_picture, grid_to_pixels, to_numpy

__all__ = ["VIEWS", "Camera", "Cloud", "cloud_colors", "cloud_from_depth", "linked_stills", "look_at", "orbit_camera",
           "provenance", "splat", "steep_pixels", "view_camera"]

_NOTHING = np.iinfo(np.int64).max


class Cloud(NamedTuple):
    """Points with colours, and the pixel each came from.

    points: float32 (N, 3) metres. colors: uint8 (N, 3). pixels: int64 (N,), row * width + column.
    """

    points: np.ndarray
    colors: np.ndarray
    pixels: np.ndarray


def cloud_from_depth(depth: Pixels, is_valid: Pixels | None, intrinsics: Intrinsics, color: Pixels, *,
                     max_grazing: float | None = 86.0) -> Cloud:
    """The points of one frame, without the "flying pixels" between a thing and what is behind it.

    Args:
        depth: (H, W) metres.
        is_valid: bool (H, W); None: every pixel (a prediction).
        intrinsics: the camera of this image, at this size.
        color: uint8 or float 0..1, (H, W, 3).
        max_grazing: degrees between a surface's normal and the line of sight, 0..90. A step of depth to a neighbour
            steeper than that drops the farther of the two pixels, so thin things in front survive. None keeps all.

    Returns:
        The cloud; empty for a frame that is all hole.

    Raises:
        PictureError: sizes that differ, or an angle outside 0..90.
    """
    depth, is_valid = checked_depth(depth, is_valid)
    color = as_picture(color)
    if color.shape[:2] != depth.shape:
        raise PictureError(f"colour of the depth's size {depth.shape}", str(color.shape[:2]), "Resize the frame first.")
    is_kept = is_valid if max_grazing is None else is_valid & ~steep_pixels(depth, is_valid, intrinsics, max_grazing)
    pixels = np.flatnonzero(is_kept)
    camera = torch.from_numpy(intrinsics.as_array())[None]
    points = unproject(torch.from_numpy(depth)[None], camera)[0].numpy()
    return Cloud(points.reshape(-1, 3)[pixels], color.reshape(-1, 3)[pixels], pixels)


def steep_pixels(depth: np.ndarray, is_valid: np.ndarray, intrinsics: Intrinsics, max_grazing: float) -> np.ndarray:
    """Pixels behind a step of depth that only a surface seen at more than ``max_grazing`` degrees could make.

    A plane whose normal leaves the line of sight by an angle a changes, near the image centre, by
    z tan(a) / f from pixel to pixel, so the same angle means the same thing at every resolution.

    Returns:
        bool (H, W).
    """
    if not 0 < max_grazing < 90:
        raise PictureError("max_grazing between 0 and 90 degrees", f"{max_grazing:g}", "Pass None to keep every pixel.")
    is_steep = np.zeros(depth.shape, bool)
    for axis, focal in ((0, intrinsics.fy), (1, intrinsics.fx)):
        one = (slice(None, -1), slice(None)) if axis == 0 else (slice(None), slice(None, -1))
        other = (slice(1, None), slice(None)) if axis == 0 else (slice(None), slice(1, None))
        step = depth[other] - depth[one]
        most = np.minimum(depth[one], depth[other]) * np.float32(math.tan(math.radians(max_grazing)) / focal)
        is_jump = (np.abs(step) > most) & is_valid[one] & is_valid[other]
        is_steep[other] |= is_jump & (step > 0)
        is_steep[one] |= is_jump & (step < 0)
    return is_steep


def provenance(is_valid: Pixels, is_masked: Pixels) -> np.ndarray:
    """Where each pixel's depth comes from: ``style.SEEN``, ``style.PREDICTED`` or ``style.NEVER_MEASURED``.

    Args:
        is_valid: bool (H, W), the sensor measured it.
        is_masked: bool (rows, columns), True = hidden from the depth encoder.

    Returns:
        uint8 (H, W).
    """
    is_valid = to_numpy(is_valid)
    hidden = np.where(grid_to_pixels(is_masked, is_valid.shape), style.PREDICTED, style.SEEN)
    return np.where(is_valid, hidden, style.NEVER_MEASURED).astype(np.uint8)


def cloud_colors(mode: str, values: Pixels, pixels: np.ndarray, *, limits: tuple[float, float] | None = None,
                 is_valid: Pixels | None = None, colormap: str = "inferno_r") -> np.ndarray:
    """Colours of a cloud's points.

    Args:
        mode: "rgb", "depth", "error" or "provenance".
        values: the picture that goes with the mode: colour (H, W, 3); depth (H, W) metres; signed error (H, W)
            metres; :func:`provenance` (H, W).
        pixels: int (N,), which pixel each point came from.
        limits: metres at the ends of the colours; needed for "depth" and "error" (there symmetric about 0).
        is_valid: for "error", bool (H, W): points without truth become grey.
        colormap: for "depth".

    Returns:
        uint8 (N, 3).

    Raises:
        PictureError: unknown mode, or limits missing.
    """
    if mode not in ("rgb", "depth", "error", "provenance"):
        raise PictureError("mode 'rgb', 'depth', 'error' or 'provenance'", repr(mode), "Choose one of them.")
    if mode == "rgb":
        return as_picture(values).reshape(-1, 3)[pixels]
    values = to_numpy(values)
    if mode == "provenance":
        return style.PROVENANCE_COLORS[values.ravel()[pixels]]
    if limits is None or not limits[0] < limits[1]:
        raise PictureError(f"limits (low, high) in metres for mode {mode!r}", str(limits),
                           "Pass depth_range(...), or (-limit, limit) for the error.")
    if mode == "depth":
        return style.apply_colormap(values.ravel()[pixels], *limits, colormap)
    if limits[0] != -limits[1]:
        raise PictureError("limits symmetric about 0 for signed error", str(limits), "Pass (-limit, limit).")
    colors = style.apply_colormap(np.nan_to_num(values.ravel()[pixels]), *limits, style.ERROR_COLORMAP)
    if is_valid is not None:
        colors[~to_numpy(is_valid).ravel()[pixels]] = style.NO_ERROR_COLOR
    return colors


def splat(points: Pixels, colors: np.ndarray, camera: Camera, size: tuple[int, int] = (480, 640), *,
          point_size: int = 2, background: tuple[int, int, int] = (255, 255, 255),
          shading: float = 0.0) -> np.ndarray:
    """Draw a cloud: every point a square of pixels, the nearest wins.

    The z-buffer holds (depth, index) in one 64-bit number, so that the minimum is one operation, ties go to the
    first point, and the answer does not depend on the order of work. Squares grow from it by a running minimum, so a
    larger point costs next to nothing.

    Args:
        points: (N, 3) metres.
        colors: uint8 (N, 3).
        camera: where from; its intrinsics are those of a picture of ``size``.
        size: (height, width).
        point_size: side of the squares, pixels.
        background: colour where there is no point.
        shading: 0..1, darkens what lies behind its neighbours (eye-dome lighting: Boucheny 2009), which shows shape
            where colour is flat.

    Returns:
        uint8 (H, W, 3).

    Raises:
        PictureError: shapes that do not fit, or points that are not finite.
    """
    points, colors = to_numpy(points), to_numpy(colors)
    if points.ndim != 2 or points.shape[1] != 3 or colors.shape != points.shape or colors.dtype != np.uint8:
        raise PictureError("points (N, 3) and colours uint8 (N, 3)",
                           f"{points.shape} and {colors.dtype} {colors.shape}", "Flatten the picture of points.")
    if point_size < 1 or min(size) < 1:
        raise PictureError("point_size and size of at least one pixel", f"{point_size}, {size}", "Enlarge them.")
    buffer = _z_buffer(points, camera, size, point_size)
    is_drawn = buffer != _NOTHING
    image = np.full((*size, 3), background, np.uint8)
    image[is_drawn] = colors[buffer[is_drawn] & 0xFFFFFFFF]
    if shading:
        image = _shaded(image, buffer, is_drawn, shading)
    return image


def _z_buffer(points: np.ndarray, camera: Camera, size: tuple[int, int], point_size: int) -> np.ndarray:
    """int64 (H, W): the bits of the nearest depth above the index of its point, or ``_NOTHING``."""
    height, width = size
    rotation = camera.pose[:3, :3].astype(np.float32)
    offset = (camera.pose[:3, :3].T @ camera.pose[:3, 3]).astype(np.float32)
    local = points.astype(np.float32, copy=False) @ rotation
    z = local[:, 2] - offset[2]
    if not np.isfinite(z.sum()):
        raise PictureError("finite points", "NaN or infinite coordinates",
                           "Leave the holes out: cloud_from_depth does.")
    k = camera.intrinsics
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.float32(1) / z
        column = np.rint((local[:, 0] - offset[0]) * inverse * np.float32(k.fx) + np.float32(k.cx))
        row = np.rint((local[:, 1] - offset[1]) * inverse * np.float32(k.fy) + np.float32(k.cy))
    before, after = (point_size - 1) // 2, point_size // 2  # a square reaches so far to either side of its centre
    inside = np.flatnonzero((z > 1e-3) & (column >= -after) & (column < width + before)
                            & (row >= -after) & (row < height + before))
    wide = width + point_size - 1
    place = (row[inside].astype(np.int64) + after) * wide + column[inside].astype(np.int64) + after
    key = (np.ascontiguousarray(z[inside]).view(np.int32).astype(np.int64) << 32) | inside
    buffer = np.full((height + point_size - 1) * wide, _NOTHING)
    np.minimum.at(buffer, place, key)
    buffer = buffer.reshape(-1, wide)
    for shift in range(point_size):  # row r draws the points whose centres lie in r - after .. r + before
        tall = buffer[shift:shift + height] if shift == 0 else np.minimum(tall, buffer[shift:shift + height])
    for shift in range(point_size):
        full = tall[:, shift:shift + width] if shift == 0 else np.minimum(full, tall[:, shift:shift + width])
    return full


def _shaded(image: np.ndarray, buffer: np.ndarray, is_drawn: np.ndarray, strength: float) -> np.ndarray:
    """Darken by how far each pixel lies behind its four neighbours, in logarithm of depth."""
    depth = np.where(is_drawn, buffer >> 32, 0x7F7FFFFF).astype(np.int32).view(np.float32)
    level = np.pad(np.log2(depth), 2, mode="edge")
    height, width = depth.shape
    behind = np.zeros(depth.shape, np.float32)
    for down, right in ((0, 2), (4, 2), (2, 0), (2, 4)):
        behind += np.clip(level[2:2 + height, 2:2 + width] - level[down:down + height, right:right + width], 0, 0.05)
    light = np.exp(-12.0 * strength * behind)
    return np.where(is_drawn[..., None], image * light[..., None], image).astype(np.uint8)


def linked_stills(truth: Cloud, prediction: Cloud, *, view: str | Camera = "three-quarter",
                  size: tuple[int, int] = (480, 640), captions: tuple[str, str] = ("Truth", "Prediction"),
                  point_size: int = 3, shading: float = 0.6, font_size: int = 20,
                  theme: str = "light") -> np.ndarray:
    """Two clouds side by side under one camera.

    Args:
        truth, prediction: the clouds.
        view: a preset, fitted to the truth (to the prediction where the truth is empty), or a camera of your own.
        size: (height, width) of each picture.
        captions: one each.
        point_size, shading: as :func:`splat`.
        font_size: pixels.
        theme: "light" or "dark".

    Returns:
        uint8 (H, W, 3).
    """
    fitted = truth.points if len(truth.points) else prediction.points
    camera = view if isinstance(view, Camera) else view_camera(view, fitted, size)
    ground = style.rgb(style.theme(theme)["ground"])
    stills = [splat(cloud.points, cloud.colors, camera, size, point_size=point_size, background=ground,
                    shading=shading) for cloud in (truth, prediction)]
    return contact_sheet(stills, list(captions), 2, font_size=font_size, theme=theme)
