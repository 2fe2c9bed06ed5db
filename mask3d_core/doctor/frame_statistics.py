"""What the doctor measures on one frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mask3d_core.doctor.alignment import shift_scores
from mask3d_core.frames import IGNORE_LABEL, RGBDFrame

PATCH = 16
_THUMBNAIL = (12, 16)
_TRAINING_SIZE = (240, 320)


@dataclass(frozen=True)
class FrameStatistics:
    """Numbers of one frame.

    Args:
        name: of the frame.
        size: (height, width).
        color_mean, color_spread: grey levels, mean and standard deviation.
        valid_share: pixels with depth.
        empty_patches: share of 16x16 patches without any depth, at the training size of 240x320.
        depth_percentiles: 1, 50 and 99 % of the valid depth in metres; NaN without any.
        top_share: share of the valid pixels that hold the very largest value.
        distinct_depths: how many different depths there are.
        smallest_step: metres between the two closest of them, as a share of the near end (1 %) of the depth.
        camera_problems: what is wrong with the intrinsics.
        intrinsics: fx fy cx cy as shares of width and height.
        has_pose: whether there is one.
        labels: pixel counts by class id, or None.
        thumbnail: float32 (k,), the picture made tiny and standardised.
        shift_scores: of the alignment check, or None.
    """

    name: str
    size: tuple[int, int]
    color_mean: float
    color_spread: float
    valid_share: float
    empty_patches: float
    depth_percentiles: tuple[float, float, float]
    top_share: float
    distinct_depths: int
    smallest_step: float
    camera_problems: list[str]
    intrinsics: tuple[float, float, float, float]
    has_pose: bool
    labels: np.ndarray | None
    thumbnail: np.ndarray
    shift_scores: np.ndarray | None


def thumbnail(color: np.ndarray) -> np.ndarray:
    """The picture as 12x16 block means per channel; for near-duplicates.

    Args:
        color: uint8 (h, w, 3).

    Returns:
        float32 (576,), in grey levels, less the picture's own mean per channel.
    """
    height, width = _THUMBNAIL
    rows = np.linspace(0, color.shape[0], height + 1).astype(int)[:-1]
    columns = np.linspace(0, color.shape[1], width + 1).astype(int)[:-1]
    sums = np.add.reduceat(np.add.reduceat(color, rows, 0, dtype=np.float64), columns, 1)
    area = np.outer(np.diff([*rows, color.shape[0]]), np.diff([*columns, color.shape[1]]))
    tiny = sums / area[:, :, None]
    return (tiny - tiny.mean((0, 1))).astype(np.float32).ravel()


def empty_patch_share(frame: RGBDFrame) -> float:
    """Share of 16x16 patches without any valid pixel, on the frame fitted to the training size."""
    is_valid = frame.fit(*_TRAINING_SIZE).is_valid
    patches = is_valid.reshape(_TRAINING_SIZE[0] // PATCH, PATCH, _TRAINING_SIZE[1] // PATCH, PATCH)
    return float(1 - patches.any((1, 3)).mean())


def measure_frame(frame: RGBDFrame) -> FrameStatistics:
    """All numbers of one frame."""
    measured = frame.depth[frame.is_valid]
    if measured.size:
        percentiles = tuple(float(v) for v in np.percentile(measured, (1, 50, 99)))
        top_share = float((measured == measured.max()).mean())
        depths = np.unique(measured)
        step = float(np.diff(depths).min(initial=np.inf)) / max(percentiles[0], 1e-9)
    else:
        percentiles, top_share, depths, step = (float("nan"),) * 3, 0.0, measured, float("inf")
    camera = frame.intrinsics
    labels = None
    if frame.semantic is not None:
        labels = np.bincount(frame.semantic.ravel(), minlength=IGNORE_LABEL + 1)
    return FrameStatistics(
        name=str(frame.origin), size=(frame.height, frame.width), color_mean=float(frame.color.mean()),
        color_spread=float(frame.color.std()), valid_share=float(frame.is_valid.mean()),
        empty_patches=empty_patch_share(frame), depth_percentiles=percentiles, top_share=top_share,
        distinct_depths=len(depths), smallest_step=step, camera_problems=camera.problems(frame.height, frame.width),
        intrinsics=(camera.fx / frame.width, camera.fy / frame.height, (camera.cx + 0.5) / frame.width,
                    (camera.cy + 0.5) / frame.height),
        has_pose=frame.pose is not None, labels=labels, thumbnail=thumbnail(frame.color),
        shift_scores=shift_scores(frame))
