"""From metres to the space of the model and back, without ever looking at what is hidden.

Every statistic that reaches the input, or turns the output into metres, comes from visible valid pixels; with none
visible, from the training data. One object, :class:`DepthSpace`, holds a frame's map in both directions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mask3d_core.models.config import DepthTarget
from mask3d_core.shapes import Bool, Float

TRIM = 0.1  # share trimmed at each end of a frame's depths (as MultiMAE; paper value not known)
NEAREST, FARTHEST = 0.05, 100.0  # metres; outputs are clamped to this range
_STRIDE = 4  # statistics look at every fourth row and column: 16 pixels of a 16-px patch say enough
_SHRINK = 16.0  # pseudo-pixels of the training data's spread, so that one flat visible patch gives no spread of zero


@dataclass(frozen=True)
class DepthSpace:
    """The invertible map between metres and the model's numbers, per frame.

    Args:
        representation: "linear", "log" or "inverse".
        focal_ratio: Float (b, 1, 1), f_ref / f of this image.
        mean, std: Float (b, 1, 1), of the represented canonical depth.
        is_scale_assumed: Bool (b,), True where nothing was visible and the training data's statistics stand in.
    """

    representation: str
    focal_ratio: Tensor
    mean: Tensor
    std: Tensor
    is_scale_assumed: Tensor

    def encode(self, depth: Float[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
        """Metres to the model's space. Holes (0 m) give a finite number; the caller masks them."""
        return (represent(depth * self.focal_ratio, self.representation) - self.mean) / self.std

    def decode(self, value: Float[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
        """The model's space to metres, clamped to 0.05..100 m. Differentiable inside the range."""
        value = value.float() * self.std + self.mean
        if self.representation == "log":
            canonical = value.clamp(-4.0, 6.0).exp()
        elif self.representation == "inverse":
            canonical = 1.0 / value.clamp(min=1.0 / FARTHEST)
        else:
            canonical = value
        return (canonical / self.focal_ratio).clamp(NEAREST, FARTHEST)


def represent(depth: Tensor, representation: str) -> Tensor:
    """z, log z or 1/z of canonical metres (clamped to 0.05..100 m)."""
    depth = depth.float().clamp(NEAREST, FARTHEST)
    return {"linear": lambda z: z, "log": torch.log, "inverse": torch.reciprocal}[representation](depth)


def focal_of(intrinsics: Float[Tensor, "b 4"]) -> Float[Tensor, "b"]:
    """One focal length per camera, in pixels: the geometric mean of fx and fy."""
    return (intrinsics[:, 0] * intrinsics[:, 1]).sqrt()


def trimmed_statistics(value: Float[Tensor, "b h w"], is_counted: Bool[Tensor, "b h w"]
                       ) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance of the counted pixels of each frame without the lowest and highest 10 %.

    Args:
        value: any numbers; those not counted are never used.
        is_counted: which count.

    Returns:
        mean (b,), variance (b,) and the number of counted samples (b,), all float32; 0 where nothing counts.
    """
    value = value[:, _STRIDE // 2::_STRIDE, _STRIDE // 2::_STRIDE].flatten(1)
    is_counted = is_counted[:, _STRIDE // 2::_STRIDE, _STRIDE // 2::_STRIDE].flatten(1)
    ordered = torch.where(is_counted, value, torch.inf).sort(dim=1).values
    count = is_counted.sum(dim=1, keepdim=True)
    cut = (count * TRIM).floor().long()
    place = torch.arange(value.shape[1], device=value.device)[None]
    inside = (place >= cut) & (place < count - cut)
    kept = torch.where(inside, ordered, 0.0)
    number = inside.sum(dim=1).clamp(min=1)
    mean = kept.sum(dim=1) / number
    variance = torch.where(inside, (ordered.nan_to_num(posinf=0.0) - mean[:, None]).square(), 0.0).sum(dim=1) / number
    return mean, variance, count[:, 0].float()


def depth_space(target: DepthTarget, depth: Float[Tensor, "b h w"], is_visible: Bool[Tensor, "b h w"],
                intrinsics: Float[Tensor, "b 4"], data_mean: Tensor, data_std: Tensor) -> DepthSpace:
    """The map of each frame.

    Args:
        target: the space wanted.
        depth: metres; only where ``is_visible`` is True is it used.
        is_visible: valid and not hidden.
        intrinsics: fx fy cx cy in pixels of this image.
        data_mean, data_std: scalars, statistics of the training data in the represented canonical space.
    """
    focal_ratio = (target.reference_focal / focal_of(intrinsics.float()))[:, None, None]
    is_scale_assumed = ~is_visible.flatten(1).any(dim=1)
    batch = depth.shape[0]
    if target.normalisation == "metric":
        mean, std = data_mean.expand(batch), data_std.expand(batch)
    else:
        mean, variance, count = trimmed_statistics(represent(depth * focal_ratio, target.representation), is_visible)
        variance = (variance * count + data_std.square() * _SHRINK) / (count + _SHRINK)
        is_scale_assumed = is_scale_assumed | (count == 0)  # so little visible that no sampled pixel fell on it
        mean = torch.where(is_scale_assumed, data_mean, mean)
        std = torch.where(is_scale_assumed, data_std, variance.sqrt())
    return DepthSpace(target.representation, focal_ratio, mean[:, None, None], std[:, None, None], is_scale_assumed)
