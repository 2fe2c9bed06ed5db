"""Depth losses over counted pixels. Each returns one number per frame: its mean over that frame's counted pixels.

Sums over frames and the number of frames that have any counted pixel are added over micro-batches and ranks before
dividing (``training.engine``), so a batch without one valid pixel gives loss 0 and no NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mask3d_core.geometry import unproject
from mask3d_core.shapes import Bool, Float


FLOOR = 0.1  # of the relative loss: frames whose surface is nearly right do not count without end; ours
HUBER = 0.04  # where "huber" turns from square to straight, in the model's space (about 2 % of the depth in log); ours


def frame_mean(value: Float[Tensor, "b ..."], is_counted: Bool[Tensor, "b ..."]) -> Float[Tensor, "b"]:
    """Mean over each frame's counted entries; 0 where a frame has none. Entries not counted may be anything."""
    value = torch.where(is_counted, value, 0.0).flatten(1)
    return value.sum(dim=1) / is_counted.flatten(1).sum(dim=1).clamp(min=1)


def berhu(difference: Float[Tensor, "b h w"], is_counted: Bool[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
    """Reverse Huber: |d| below c, (d^2 + c^2) / 2c above, c = a fifth of *this frame's* largest |d| (Laina et al. 2016)."""
    size = difference.abs()
    threshold = torch.where(is_counted, size.detach(), 0.0).flatten(1).amax(dim=1).mul(0.2).clamp(min=1e-6)
    threshold = threshold[:, None, None]
    return torch.where(size <= threshold, size, (size.square() + threshold.square()) / (2 * threshold))


def depth_loss(kind: str, value: Float[Tensor, "b h w"], target: Float[Tensor, "b h w"],
               prediction: Float[Tensor, "b h w"], depth: Float[Tensor, "b h w"],
               is_counted: Bool[Tensor, "b h w"]) -> Float[Tensor, "b"]:
    """The main term.

    Args:
        kind: "l1", "l2", "berhu", "huber" on the model's space; "log": |log z - log z'| of metres.
        value, target: prediction and truth in the model's space.
        prediction, depth: the same in metres.
        is_counted: valid, and hidden if only hidden pixels count.
    """
    if kind == "log":
        difference = prediction.clamp(min=1e-3).log() - depth.clamp(min=1e-3).log()
        return frame_mean(difference.abs(), is_counted)
    difference = torch.where(is_counted, value - target, 0.0)
    if kind == "l1":
        return frame_mean(difference.abs(), is_counted)
    if kind == "l2":
        return frame_mean(difference.square(), is_counted)
    if kind == "berhu":
        return frame_mean(berhu(difference, is_counted), is_counted)
    if kind == "huber":
        size = difference.abs()
        return frame_mean(torch.where(size < HUBER, 0.5 * size.square() / HUBER, size - 0.5 * HUBER), is_counted)
    raise ValueError(f"expected l1, l2, berhu, huber or log; got {kind!r}")


def gradient_loss(prediction: Float[Tensor, "b h w"], depth: Float[Tensor, "b h w"],
                  is_valid: Bool[Tensor, "b h w"], is_counted: Bool[Tensor, "b h w"], stride: int = 1
                  ) -> Float[Tensor, "b"]:
    """L1 between the differences of neighbouring log depths, across patch borders too (a linear head leaves seams there).

    A pair counts where both pixels are valid and at least one is counted. Log metres make it a relative slope.

    Args:
        stride: distance of the neighbours in pixels; several strides make it multi-scale.
    """
    error = (prediction.clamp(min=1e-3).log() - depth.clamp(min=1e-3).log()).masked_fill(~is_valid, 0.0)
    terms = []
    for axis in (1, 2):
        length = error.shape[axis] - stride
        first, second = error.narrow(axis, 0, length), error.narrow(axis, stride, length)
        both = is_valid.narrow(axis, 0, length) & is_valid.narrow(axis, stride, length)
        any_counted = is_counted.narrow(axis, 0, length) | is_counted.narrow(axis, stride, length)
        terms.append(frame_mean((second - first).abs(), both & any_counted))
    return terms[0] + terms[1]


def normal_loss(prediction: Float[Tensor, "b h w"], depth: Float[Tensor, "b h w"], is_valid: Bool[Tensor, "b h w"],
                is_counted: Bool[Tensor, "b h w"], intrinsics: Float[Tensor, "b 4"], stride: int = 2
                ) -> Float[Tensor, "b"]:
    """1 - cosine between the surface normals of prediction and truth, on de-normalised metres.

    Normals come from forward differences over ``stride`` pixels; a pixel counts where all three are valid, the truth
    has no jump above 10 % and the pixel is counted. (The authors of Mask3D name normals as an open proxy loss.)
    """
    def normals(z: Tensor) -> Tensor:
        points = unproject(z, intrinsics)
        right = points[:, :-stride, stride:] - points[:, :-stride, :-stride]
        down = points[:, stride:, :-stride] - points[:, :-stride, :-stride]
        return F.normalize(torch.linalg.cross(right, down, dim=-1), dim=-1, eps=1e-8)

    here, right, down = depth[:, :-stride, :-stride], depth[:, :-stride, stride:], depth[:, stride:, :-stride]
    smooth = ((right - here).abs() < 0.1 * here) & ((down - here).abs() < 0.1 * here)
    valid = is_valid[:, :-stride, :-stride] & is_valid[:, :-stride, stride:] & is_valid[:, stride:, :-stride]
    cosine = (normals(prediction) * normals(torch.where(is_valid, depth, 1.0))).sum(dim=-1)
    return frame_mean(1 - cosine, smooth & valid & is_counted[:, :-stride, :-stride])


def multi_scale_loss(value: Float[Tensor, "b h w"], target: Float[Tensor, "b h w"], is_counted: Bool[Tensor, "b h w"],
                     scales: tuple[int, ...] = (2, 4, 8)) -> Float[Tensor, "b"]:
    """L1 between block means over counted pixels at coarser scales, in the model's space."""
    difference = torch.where(is_counted, value - target, 0.0)[:, None]
    share = is_counted[:, None].to(difference.dtype)
    total = torch.zeros(value.shape[0], device=value.device)
    for scale in scales:
        weight = F.avg_pool2d(share, scale)
        mean = F.avg_pool2d(difference, scale) / weight.clamp(min=1e-6)
        total = total + frame_mean(mean[:, 0].abs(), weight[:, 0] > 0)
    return total / max(1, len(scales))


@dataclass(frozen=True)
class LossConfig:
    """What is minimised. Everything here is ours: the paper's loss terms are not known beyond "dense depth".

    Args:
        kind: "l1", "l2" (default), "berhu", "huber" or "log". Beside an anchor the errors are small and mostly noise,
            and l1 and log, which weigh them all alike, teach nothing; huber does.
        counted: "hidden" pixels only (default, ours; paper value not known) or "all" valid pixels.
        visible: weight of the visible pixels' own mean beside the hidden ones', where only these are counted; keeps
            a model with an anchor from roughening what it was shown.
        gradient, normal, multi_scale: weights of the extra terms; 0 leaves a term out.
        rgb: weight of the RGB target's term, where the model has one.
        relative: divide each frame's depth loss by what the model's anchor alone misses, plus 0.1 (``FLOOR``). Without
            it the steps with no visible depth, whose errors are twenty times as large, drown all others in the
            optimiser.
    """

    kind: str = "l2"
    counted: str = "hidden"
    gradient: float = 0.0
    normal: float = 0.0
    multi_scale: float = 0.0
    rgb: float = 1.0
    visible: float = 0.0
    relative: bool = False

    def problems(self) -> list[str]:
        """Everything that is wrong, one line each."""
        found = []
        if self.kind not in ("l1", "l2", "berhu", "huber", "log"):
            found.append(f"loss.kind must be l1, l2, berhu, huber or log; got {self.kind!r}")
        if self.counted not in ("hidden", "all"):
            found.append(f"loss.counted must be hidden or all; got {self.counted!r}")
        if min(self.gradient, self.normal, self.multi_scale, self.rgb, self.visible) < 0:
            found.append("loss weights must be >= 0")
        return found
