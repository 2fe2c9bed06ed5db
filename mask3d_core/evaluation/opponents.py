"""Trivial predictors of the hidden depth, made as strong as they can be: a weak opponent flatters the model.

Each sees what the model sees and nothing else: depth where it is known (visible and measured), colour where it is
visible. None is trained, but for the mean map. Values that are not known never enter, not even as zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mask3d_core.errors import Mask3DError
from mask3d_core.interpolation import fill_nearest, fill_smooth, plane_trend
from mask3d_core.models.targets import focal_of
from mask3d_core.shapes import Bool, Float

STIFFNESS = 256.0  # pixels squared: slopes carry about 16 px into a gap
RIDGE = 2e-4  # of the plane's slopes; with 15 of 300 patches known it takes a few per cent off them
COLOR_SIGMA = 0.04  # Euclidean distance in RGB 0..1 at which the conductance has fallen to 1/e
COLOR_FLOOR = 1e-3  # smallest conductance, so that no region is cut off


def mean_depth(depth: Float[Tensor, "b h w"], is_known: Bool[Tensor, "b h w"], color: Float[Tensor, "b 3 h w"],
               is_color_visible: Bool[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
    """The mean of the known depths, everywhere.

    Args:
        depth: (b, h, w) metres; only known pixels are used.
        is_known: visible and measured.
        color: (b, 3, h, w), 0..1; only visible pixels are used, and only by :func:`color_guided`.
        is_color_visible: (b, h, w).

    Returns:
        (b, h, w) metres; NaN for a frame with nothing known. The same for every function here.
    """
    total = torch.where(is_known, depth, 0.0).flatten(1).sum(dim=1)
    return (total / is_known.flatten(1).sum(dim=1))[:, None, None].expand(depth.shape).clone()


def median_depth(depth: Float[Tensor, "b h w"], is_known: Bool[Tensor, "b h w"], color: Float[Tensor, "b 3 h w"],
                 is_color_visible: Bool[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
    """The median of the known depths, everywhere."""
    median = torch.where(is_known, depth, torch.nan).flatten(1).nanmedian(dim=1).values
    return median[:, None, None].expand(depth.shape).clone()


def nearest(depth: Float[Tensor, "b h w"], is_known: Bool[Tensor, "b h w"], color: Float[Tensor, "b 3 h w"],
            is_color_visible: Bool[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
    """The depth of the nearest known pixel, exactly."""
    return _or_nan(fill_nearest(torch.where(is_known, depth, 0.0), is_known), is_known)


def linear(depth: Float[Tensor, "b h w"], is_known: Bool[Tensor, "b h w"], color: Float[Tensor, "b 3 h w"],
           is_color_visible: Bool[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
    """Interpolation of the depth: a plane, and a spline under tension through what it leaves."""
    return _interpolate(depth, is_known)


def linear_inverse(depth: Float[Tensor, "b h w"], is_known: Bool[Tensor, "b h w"], color: Float[Tensor, "b 3 h w"],
                   is_color_visible: Bool[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
    """The same interpolation of the inverse depth, in which every flat surface is linear."""
    return 1.0 / _interpolate(_inverse(depth, is_known), is_known)


def color_guided(depth: Float[Tensor, "b h w"], is_known: Bool[Tensor, "b h w"], color: Float[Tensor, "b 3 h w"],
                 is_color_visible: Bool[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
    """Interpolation of the inverse depth that gives way at edges of the visible colour.

    Neighbours whose colours are both visible and differ by d are tied with conductance exp(-d / 0.04) (after Levin,
    Lischinski, Weiss, "Colorization using optimization", 2004); all others with 1.
    """
    def conductance(first: Tensor, second: Tensor, both: Tensor) -> Tensor:
        distance = (first - second).square().sum(dim=1).sqrt()
        return torch.where(both, (-distance / COLOR_SIGMA).exp().clamp(min=COLOR_FLOOR), 1.0)

    visible = is_color_visible
    across = conductance(color[..., 1:], color[..., :-1], visible[..., 1:] & visible[..., :-1])
    down = conductance(color[..., 1:, :], color[..., :-1, :], visible[:, 1:] & visible[:, :-1])
    return 1.0 / _interpolate(_inverse(depth, is_known), is_known, across, down)


def _inverse(depth: Tensor, is_known: Tensor) -> Tensor:
    return 1.0 / torch.where(is_known, depth, 1.0)


def _or_nan(value: Tensor, is_known: Tensor) -> Tensor:
    return torch.where(is_known.flatten(1).any(dim=1)[:, None, None], value, torch.nan)


def _interpolate(value: Tensor, is_known: Tensor, across: Tensor | None = None, down: Tensor | None = None) -> Tensor:
    """Plane, spline through the rest, cut to the range of the known values; known pixels keep theirs."""
    trend = plane_trend(value, is_known, RIDGE)
    filled = trend + fill_smooth(value - trend, is_known, STIFFNESS, across, down)
    low = torch.where(is_known, value, torch.inf).flatten(1).amin(dim=1)[:, None, None]
    high = torch.where(is_known, value, -torch.inf).flatten(1).amax(dim=1)[:, None, None]
    return _or_nan(torch.where(is_known, value, torch.minimum(torch.maximum(filled, low), high)), is_known)


class Opponent(NamedTuple):
    """A trivial predictor with words for a table. Calling it calls ``predict``, which is :func:`mean_depth` or its like."""

    label: str
    words: str
    predict: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

    def __call__(self, depth: Float[Tensor, "b h w"], is_known: Bool[Tensor, "b h w"],
                 color: Float[Tensor, "b 3 h w"], is_color_visible: Bool[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
        """As :func:`mean_depth`."""
        return self.predict(depth, is_known, color, is_color_visible)


OPPONENTS = {
    "mean": Opponent("mean of the visible", "one depth per frame: the mean of its visible depth", mean_depth),
    "median": Opponent("median of the visible", "one depth per frame: the median of its visible depth", median_depth),
    "nearest": Opponent("nearest", "the depth of the nearest visible pixel", nearest),
    "linear": Opponent("linear", "plane and spline under tension through the visible depth", linear),
    "linear_inverse": Opponent("linear in inverse depth", "the same through 1/depth, where flat surfaces are linear",
                               linear_inverse),
    "color_guided": Opponent("colour-guided", "the same through 1/depth, giving way at edges of the visible colour",
                             color_guided),
}


class OpponentPrediction(NamedTuple):
    """What an opponent says.

    Args:
        depth: Float (b, h, w), metres.
        is_fallback: Bool (b,), True where nothing was known and the fallback stands in.
    """

    depth: Tensor
    is_fallback: Tensor


def predict(name: str, depth: Float[Tensor, "b h w"], is_known: Bool[Tensor, "b h w"], color: Float[Tensor, "b 3 h w"],
            is_color_visible: Bool[Tensor, "b h w"], fallback: float | Tensor) -> OpponentPrediction:
    """Ask one opponent; frames with nothing known get the fallback, and it is said.

    Args:
        name: a key of ``OPPONENTS``.
        depth: (b, h, w) metres; values that are not known are never used.
        is_known: visible and measured.
        color: (b, 3, h, w), 0..1; values that are not visible are never used.
        is_color_visible: (b, h, w).
        fallback: metres, a number or (b, h, w): :meth:`MeanMap.predict`, or the training data's mean.

    Returns:
        Depth in metres and which frames fell back.

    Raises:
        Mask3DError: unknown name, or known depth that is not finite and above 0.
    """
    if name not in OPPONENTS:
        raise Mask3DError(f"one of the opponents {', '.join(OPPONENTS)}", repr(name), "Choose one of them.")
    is_wrong = is_known & ~((depth > 0) & torch.isfinite(depth))
    if bool(is_wrong.any()):
        raise Mask3DError("known depth finite and above 0 m", f"{int(is_wrong.sum())} other value(s)",
                          "A pixel is known only where it is visible and the sensor measured it.")
    nothing = torch.zeros_like(color)  # 0 * NaN is NaN: hidden colour must not enter even by a product
    color = torch.where(is_color_visible[:, None], color, nothing)
    filled = OPPONENTS[name](torch.where(is_known, depth, 0.0), is_known, color, is_color_visible)
    is_fallback = ~is_known.flatten(1).any(dim=1)
    return OpponentPrediction(torch.where(is_fallback[:, None, None], fallback, filled), is_fallback)


@dataclass(frozen=True)
class MeanMap:
    """The training set's mean depth per pixel: the opponent where no depth is visible.

    Args:
        values: Float (h, w), metres at ``reference_focal``: depth x f_ref / f of each image.
        reference_focal: f_ref in pixels, at this picture size.
        frames: how many frames it was made from.
    """

    values: Tensor
    reference_focal: float
    frames: int

    @staticmethod
    def fit(frames: Iterable[tuple[Tensor, Tensor, Tensor]], reference_focal: float) -> MeanMap:
        """Gather the map in one pass, without holding the frames.

        Args:
            frames: batches of (depth (b, h, w) metres, is_valid (b, h, w), intrinsics (b, 4)), all of one size.
            reference_focal: in pixels.

        Returns:
            The map; a pixel that no frame has measured takes the value of the nearest one that was.

        Raises:
            Mask3DError: not one valid pixel, or sizes that differ.
        """
        total = weight = None
        count = 0
        for depth, is_valid, intrinsics in frames:
            if total is not None and total.shape != depth.shape[1:]:
                raise Mask3DError(f"frames of {tuple(total.shape)}", f"frames of {tuple(depth.shape[1:])}",
                                  "Resize all frames to one size.")
            canonical = depth * (reference_focal / _focal(intrinsics))
            here, seen = torch.where(is_valid, canonical, 0.0).double().sum(0), is_valid.double().sum(0)
            total, weight = (here, seen) if total is None else (total + here, weight + seen)
            count += depth.shape[0]
        if total is None or not bool((weight > 0).any()):
            raise Mask3DError("training frames with valid depth", f"{count} frames without any",
                              "Look at the data with `mask3d doctor`.")
        mean = (total / weight.clamp(min=1)).float()[None]
        return MeanMap(fill_nearest(mean, (weight > 0)[None])[0], reference_focal, count)

    def predict(self, intrinsics: Float[Tensor, "b 4"], size: tuple[int, int] | None = None) -> Float[Tensor, "b h w"]:
        """The map in metres of these cameras.

        Args:
            intrinsics: (b, 4) fx fy cx cy in pixels.
            size: (height, width) of the pictures; by default the map's own.

        Returns:
            (b, h, w) metres.
        """
        values = self.values.to(intrinsics.device)[None]
        if size is not None and tuple(size) != tuple(self.values.shape):
            values = F.interpolate(values[None], tuple(size), mode="bilinear")[0]
        return values * (_focal(intrinsics) / self.reference_focal)


def _focal(intrinsics: Tensor) -> Tensor:
    """(b, 1, 1)."""
    return focal_of(intrinsics)[:, None, None]
