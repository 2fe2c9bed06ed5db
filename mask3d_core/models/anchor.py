"""A smooth surface through the visible depth: the start from which a decoder may predict.

A plane, and a spline under tension through what it leaves, in the model's space, cut to the range of the visible
values. The spline is solved on 8 x 8 cells per patch (cells of 2 pixels: on rooms 2 to 3 % more error than single
pixels, at a third of their time; cells of 4 give 10 % more). It uses visible valid pixels only, so what is hidden stays
hidden; with nothing visible it is 0, the data's mean. Each frame's surface is its own, whatever else is in the batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mask3d_core.interpolation import fill_smooth, plane_trend
from mask3d_core.models.patches import patchify
from mask3d_core.shapes import Bool, Float

STIFFNESS = 512.0  # pixels squared: slopes carry about 23 px into a gap; ours, the best of 128, 256, 512 on rooms
RIDGE = 2e-4  # of the plane's slopes
CYCLES = 3  # of the solver, always as many: no question that waits for the device
CONTRAST = 8.0  # how much a patch's shape is enlarged beside its mean for the decoder; ours


def _enlarge(value: Tensor, factor: int) -> Tensor:
    """Bilinear between cell centres, (b, r, c) to (b, r * factor, c * factor), continued beyond the border."""
    if factor == 1:
        return value
    padded = F.pad(value[:, None], (1, 1, 1, 1), mode="replicate")
    large = F.interpolate(padded, scale_factor=float(factor), mode="bilinear", align_corners=False)
    return large[:, 0, factor:-factor, factor:-factor]


@torch.compiler.disable  # thousands of small operations without a gradient: nothing to gain, minutes to compile
@torch.no_grad()
def spline_anchor(value: Float[Tensor, "b h w"], is_visible: Bool[Tensor, "b h w"], patch: int, cells: int = 8
                  ) -> Float[Tensor, "b h w"]:
    """The surface through the visible values.

    Args:
        value: the model's space; used only where visible.
        is_visible: valid and not hidden.
        patch: side of a patch. cells: per side of a patch.

    Returns:
        The visible values where visible; elsewhere the surface, bilinear between the centres of the cells.
    """
    side = patch // cells
    with torch.autocast(value.device.type, enabled=False):
        known = torch.where(is_visible, value.float(), 0.0)
        low = torch.where(is_visible, known, torch.inf).flatten(1).amin(1)[:, None, None]
        high = torch.where(is_visible, known, -torch.inf).flatten(1).amax(1)[:, None, None]
        trend = plane_trend(known, is_visible, RIDGE)
        share = F.avg_pool2d(is_visible[:, None].float(), side)[:, 0]
        rest = F.avg_pool2d(torch.where(is_visible, known - trend, 0.0)[:, None], side)[:, 0] / share.clamp(min=1e-6)
        rest = fill_smooth(rest, share > 0, STIFFNESS / side**2, tolerance=0.0, iterations=CYCLES)
        surface = torch.minimum(torch.maximum(trend + _enlarge(rest, side), low), high)
        surface = torch.where(low <= high, surface, 0.0)
        return torch.where(is_visible, known, surface)


def anchor_features(anchor: Float[Tensor, "b h w"], is_visible: Bool[Tensor, "b h w"], patch: int
                    ) -> Float[Tensor, "b n d"]:
    """What the decoder sees of the surface around each patch, in coarse pixels beyond its own border.

    Per patch: its mean; its pixels minus that mean; the 3 x 3 patches around it at a quarter of the resolution, minus the
    same mean; and the share that was visible in each of those. Differences pass through asinh(8 x), so that the relief
    of a wall and a step of metres both stand within a few units.

    Returns:
        Float (b, n, feature_count(patch)), row by row of the grid.
    """
    cell = _cell(patch)
    own = patchify(anchor[:, None], patch)
    mean = own.mean(dim=-1, keepdim=True)
    both = torch.stack([anchor, is_visible.to(anchor.dtype)], dim=1)
    coarse = F.pad(F.avg_pool2d(both, cell), (patch // cell,) * 4, mode="replicate")
    around = F.unfold(coarse, 3 * patch // cell, stride=patch // cell).transpose(1, 2)
    surface, shown = around.chunk(2, dim=-1)
    relief = torch.cat([own, surface], dim=-1) - mean
    return torch.cat([mean, _asinh(relief * CONTRAST), shown], dim=-1)


def _asinh(x: Tensor) -> Tensor:
    """asinh to 3e-7, absolutely; on a CPU torch's own takes seven times as long, a twentieth of a prediction."""
    return torch.copysign(torch.log(x.abs() + torch.sqrt(x * x + 1.0)), x)


def _cell(patch: int) -> int:
    return 4 if patch % 4 == 0 else 1


def feature_count(patch: int) -> int:
    """Numbers per patch of :func:`anchor_features`."""
    return 1 + patch ** 2 + 2 * (3 * patch // _cell(patch)) ** 2
