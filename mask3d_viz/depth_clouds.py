"""Truth and prediction of a frame as two clouds that can be compared: the same flying pixels, the truth also finer."""

from __future__ import annotations

from typing import Any

import numpy as np

from mask3d_core.frames import Intrinsics, RGBDFrame
from mask3d_core.reconstruct import Reconstruction
from mask3d_viz import style
from mask3d_viz.clouds import provenance
from mask3d_viz.pixels import cut_patches, grid_to_pixels
from mask3d_viz.widgets.point_cloud import frame_points, grazing_angle, pixel_in

MODES = {"provenance": "kind", "rgb": "color", "depth": "depth", "error": "error"}
"""The session's colour modes as ``PointCloud`` calls them."""
SAME_PIXELS = "the same in both clouds; the numbers count them all"  # of flying pixels
MOST = 310_000  # points of a true cloud at the frame's own resolution


def fine_frame(frame: RGBDFrame, size: tuple[int, int], most: int = MOST) -> RGBDFrame | None:
    """A frame at its own resolution, cut to what a model of picture ``size`` sees of it; None where that is no finer.

    Args:
        frame: as its source has it.
        size: (height, width) that the model sees.
        most: pixels; a larger frame is made smaller.
    """
    scale = max(size[0] / frame.height, size[1] / frame.width)
    if scale >= 1:
        return None
    rows, columns = (min(own, round(length / scale)) for own, length in zip((frame.height, frame.width), size))
    cut = frame.crop((frame.height - rows) // 2, (frame.width - columns) // 2, rows, columns)
    shrink = min(1.0, (most / (rows * columns)) ** 0.5)
    return cut.resize(int(rows * shrink), int(columns * shrink)) if shrink < 1 else cut


def both_clouds(r: Reconstruction, depth: np.ndarray, fine: RGBDFrame | None = None
                ) -> tuple[dict[str, Any], dict[str, Any]]:
    """Truth and prediction as the arguments of :meth:`PointCloud.set_pane`, with the same flying pixels.

    A pixel flies where either surface steps there: its edge is the steepest of the true one (also at the frame's own
    resolution) and the predicted one.

    Args:
        r: the prediction and its frame.
        depth: float32 (h, w) metres, what is shown as the prediction.
        fine: the frame at its own resolution, for the true cloud: the model's pixel over each of its pixels says kind,
            error and whether it flies.
    """
    camera, where = Intrinsics.from_array(r.intrinsics), provenance(r.is_valid, r.is_masked_depth)
    error = np.where(r.is_valid, 1000 * (depth - r.depth), np.nan).astype(np.float32)
    edge = np.maximum(grazing_angle(r.depth, r.is_valid, camera), grazing_angle(depth, np.ones_like(r.is_valid), camera))
    if fine is None:
        truth = frame_points(r.depth, camera, is_valid=r.is_valid, color=r.color, kind=where,
                             values={"depth": r.depth, "error": error})
        over = truth["pixel"]
    else:
        own = (fine.height, fine.width)
        place = pixel_in(r.depth.shape, own, np.arange(own[0] * own[1])).reshape(own)
        steep = grazing_angle(fine.depth, fine.is_valid, fine.intrinsics)
        edge = edge.copy()
        np.maximum.at(edge.reshape(-1), place[fine.is_valid], steep[fine.is_valid])
        kind = np.where(grid_to_pixels(r.is_masked_depth, r.depth.shape), style.PREDICTED, style.SEEN)
        truth = frame_points(fine.depth, fine.intrinsics, is_valid=fine.is_valid, color=fine.color,
                             kind=kind.astype(np.uint8).ravel()[place],
                             values={"depth": fine.depth, "error": error.ravel()[place]}) | {"size": own}
        over = place.ravel()[truth["pixel"]]
    prediction = frame_points(depth, camera, color=r.color, kind=where, values={"depth": depth, "error": error})
    return truth | {"edge": edge.ravel()[over]}, prediction | {"edge": edge.ravel()}


def two_predictions(r: Reconstruction, first: np.ndarray, second: np.ndarray) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two predictions of one frame as the arguments of :meth:`PointCloud.set_pane`, with the same flying pixels.

    Args:
        r: the frame with its masks. first, second: float32 (h, w) metres.
    """
    camera, where = Intrinsics.from_array(r.intrinsics), provenance(r.is_valid, r.is_masked_depth)
    whole = np.ones_like(r.is_valid)
    edge = np.maximum(grazing_angle(first, whole, camera), grazing_angle(second, whole, camera)).ravel()

    def points(depth: np.ndarray) -> dict[str, Any]:
        error = np.where(r.is_valid, 1000 * (depth - r.depth), np.nan).astype(np.float32)
        made = frame_points(depth, camera, color=r.color, kind=where, values={"depth": depth, "error": error})
        return made | {"edge": edge}

    return points(first), points(second)


def patch_middles(r: Reconstruction) -> np.ndarray:
    """Where each patch is in space: its middle pixel at the patch's median depth, measured where it was, else predicted.

    Returns:
        float32 (patches, 3) metres, row by row, in the clouds' coordinates.
    """
    rows, columns = r.is_masked_depth.shape
    side = r.depth.shape[0] // rows
    known = np.where(r.is_valid, r.depth, r.prediction)
    depth = np.median(cut_patches(known, (rows, columns)), axis=-1)
    fx, fy, cx, cy = r.intrinsics
    row, column = np.indices((rows, columns)) * side + side // 2
    return np.stack([(column - cx) / fx * depth, (row - cy) / fy * depth, depth], -1).reshape(-1, 3).astype(np.float32)


__all__ = ["MODES", "MOST", "SAME_PIXELS", "both_clouds", "fine_frame", "patch_middles", "two_predictions"]
