"""Errors in metres, per frame. No scale alignment: a prediction is scored as it stands.

Every function takes a batch and gives one number per frame, NaN for a frame with nothing to count. Nothing here asks
the device to wait. A prediction that is not finite is infinitely wrong, never left out.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mask3d_core.geometry import normals_from_depth
from mask3d_core.shapes import Bool, Float

PREDICTION_FLOOR = 1e-3  # metres; nearer predictions are clamped to it, so that a ratio to them exists
_MICRON = 1e-6  # metres; keeps the seam ratio of a perfect prediction at 1


class Metric(NamedTuple):
    """How a number is called, in what unit, and which way is better."""

    label: str
    unit: str = ""
    lower_is_better: bool = True
    words: str = ""


METRICS = {
    "abs_rel": Metric("AbsRel", "", True, "mean |prediction - truth| / truth"),
    "rmse": Metric("RMSE", "m", True, "root of the mean squared error, per frame"),
    "mae": Metric("MAE", "m", True, "mean absolute error"),
    "delta1": Metric("delta1", "", False, "share of pixels within a factor of 1.25"),
    "delta2": Metric("delta2", "", False, "share within 1.25^2"),
    "delta3": Metric("delta3", "", False, "share within 1.25^3"),
    "count": Metric("pixels", "", False, "how many pixels were counted"),
    "seam_border_mm": Metric("jump error at patch borders", "mm", True, "see seam_error"),
    "seam_inside_mm": Metric("jump error inside patches", "mm", True, "see seam_error"),
    "seam_excess_mm": Metric("seam", "mm", True, "jump error at patch borders minus inside patches"),
    "seam_ratio": Metric("seam ratio", "", True, "jump error at patch borders over inside patches; 1 = no seams"),
    "normal_mean": Metric("normals, mean", "deg", True, "mean angle between true and predicted surface normals"),
    "normal_median": Metric("normals, median", "deg", True, "median angle"),
    "normal_within_11": Metric("normals < 11.25 deg", "", False, "share of normals within 11.25 degrees"),
}


def counted_pixels(depth: Float[Tensor, "b h w"], is_valid: Bool[Tensor, "b h w"], is_hidden: Bool[Tensor, "b h w"],
                   max_depth: float | None = None) -> Bool[Tensor, "b h w"]:
    """The pixels that are scored: hidden from the model, measured by the sensor, and within the range cap.

    Args:
        depth: (b, h, w) metres, the truth.
        is_valid: where the sensor measured.
        is_hidden: True = hidden from the encoder, by pixel.
        max_depth: range cap in metres (10 is usual indoors); None = no cap. State it beside the numbers.

    Returns:
        Bool (b, h, w).
    """
    counted = is_valid & is_hidden
    return counted if max_depth is None else counted & (depth <= max_depth)


def _mean(value: Tensor, is_counted: Tensor) -> Tensor:
    """(b,): mean over each frame's counted entries, NaN where it has none. Entries not counted may be anything."""
    value = torch.where(is_counted, value, 0.0).flatten(1)
    return value.sum(dim=1) / is_counted.flatten(1).sum(dim=1)


def depth_metrics(prediction: Float[Tensor, "b h w"], depth: Float[Tensor, "b h w"],
                  is_counted: Bool[Tensor, "b h w"]) -> dict[str, Float[Tensor, "b"]]:
    """The usual depth errors of each frame (definitions: Eigen, Puhrsch, Fergus 2014; no scale alignment).

    Args:
        prediction: (b, h, w) metres; clamped from below to 1 mm. Not finite = infinitely wrong. A cap on the range
            is the caller's: leave far truth out of ``is_counted`` (:func:`counted_pixels`).
        depth: (b, h, w) metres, the truth; above 0 wherever counted.
        is_counted: the pixels to score.

    Returns:
        abs_rel, rmse (m), mae (m), delta1, delta2, delta3 and count, each float32 (b,). NaN (count 0) for a frame
        without a counted pixel.
    """
    prediction, depth = prediction.float(), depth.float()
    is_finite = torch.isfinite(prediction)
    prediction = torch.where(is_finite, prediction, 0.0).clamp(min=PREDICTION_FLOOR)
    truth = torch.where(is_counted, depth, 1.0)
    error = torch.where(is_finite, (prediction - truth).abs(), torch.inf)
    ratio = torch.where(is_finite, torch.maximum(prediction / truth, truth / prediction), torch.inf)
    scores = {
        "abs_rel": _mean(error / truth, is_counted),
        "rmse": _mean(error.square(), is_counted).sqrt(),
        "mae": _mean(error, is_counted),
    }
    for power in (1, 2, 3):
        scores[f"delta{power}"] = _mean((ratio < 1.25 ** power).float(), is_counted)
    scores["count"] = is_counted.flatten(1).sum(dim=1).float()
    return scores


def seam_error(prediction: Float[Tensor, "b h w"], depth: Float[Tensor, "b h w"], is_counted: Bool[Tensor, "b h w"],
               patch: int) -> dict[str, Float[Tensor, "b"]]:
    """How much worse the prediction steps across patch borders than inside patches.

    For two neighbouring pixels p, q (left/right or above/below), both counted, the jump error is
    |(prediction_q - prediction_p) - (depth_q - depth_p)|. The patch grid knows nothing of the scene, so without seams
    its mean over pairs that cross a patch border equals its mean over pairs inside one patch.

    Args:
        prediction, depth: (b, h, w) metres.
        is_counted: the pixels to score.
        patch: side of a patch in pixels.

    Returns:
        seam_border_mm and seam_inside_mm, the two means; seam_excess_mm, their difference; seam_ratio, border over
        inside (one micron added to both, so a perfect prediction has 1). Each (b,), NaN for a frame without pairs
        of either kind.
    """
    error = torch.where(is_counted, prediction.float() - depth.float(), 0.0)
    sums: dict[bool, list[Tensor]] = {True: [], False: []}
    counts: dict[bool, list[Tensor]] = {True: [], False: []}
    for step, counted in ((error, is_counted), (error.transpose(1, 2), is_counted.transpose(1, 2))):
        jump, both = (step[:, 1:] - step[:, :-1]).abs(), counted[:, 1:] & counted[:, :-1]
        crosses = torch.arange(1, step.shape[1], device=step.device)[:, None] % patch == 0
        for kind in (True, False):
            chosen = both & (crosses == kind)
            sums[kind].append(torch.where(chosen, jump, 0.0).flatten(1).sum(dim=1))
            counts[kind].append(chosen.flatten(1).sum(dim=1))
    border, inside = (sum(sums[kind]) / sum(counts[kind]) for kind in (True, False))
    return {"seam_border_mm": border * 1000, "seam_inside_mm": inside * 1000, "seam_excess_mm": (border - inside) * 1000,
            "seam_ratio": (border + _MICRON) / (inside + _MICRON)}


def normal_error(prediction: Float[Tensor, "b h w"], depth: Float[Tensor, "b h w"], is_counted: Bool[Tensor, "b h w"],
                 intrinsics: Float[Tensor, "b 4"]) -> dict[str, Float[Tensor, "b"]]:
    """Angle between the surface normals of the truth and of the prediction.

    Normals come from central differences (``geometry.normals_from_depth``) over counted pixels only, so nothing that
    was visible helps. Where the truth has a silhouette there is no normal to compare with; where only the prediction
    jumps, its normal is scored as it is.

    Args:
        prediction, depth: (b, h, w) metres.
        is_counted: the pixels to score.
        intrinsics: (b, 4) fx fy cx cy in pixels.

    Returns:
        normal_mean and normal_median in degrees, 0..180, and normal_within_11, the share within 11.25 degrees.
        Each (b,), NaN for a frame in which no normal is defined.
    """
    prediction = prediction.float()
    is_finite = torch.isfinite(prediction)
    prediction = torch.where(is_finite, prediction, 0.0).clamp(min=PREDICTION_FLOOR)
    everywhere = torch.ones_like(is_counted)
    true_normals, is_defined = normals_from_depth(depth.float(), is_counted, intrinsics)
    normals, _ = normals_from_depth(prediction, everywhere, intrinsics, float("inf"))
    # atan2 keeps its precision at small angles, where acos of a float32 dot product has lost half its digits
    sine = torch.linalg.cross(true_normals, normals).norm(dim=-1)
    angle = torch.rad2deg(torch.atan2(sine, (true_normals * normals).sum(dim=-1)))
    angle = torch.where(is_finite, angle, 180.0)
    median = torch.where(is_defined, angle, torch.nan).flatten(1).nanmedian(dim=1).values
    return {"normal_mean": _mean(angle, is_defined), "normal_median": median,
            "normal_within_11": _mean((angle < 11.25).float(), is_defined)}
