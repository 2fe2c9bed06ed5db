"""A smooth surface through the visible depth: the start from which a decoder may predict.

A spline under tension in the model's space, solved on 8 x 8 cells per patch (cells of 2 pixels: on rooms 10 % less
error than cells of 4, and no more than single pixels, at a sixth of their time). It uses visible valid pixels only,
so what is hidden stays hidden; with nothing visible it is 0, the data's mean. Each frame's surface is its own, whatever
else is in the batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mask3d_core.interpolation import fill_smooth
from mask3d_core.shapes import Bool, Float

STIFFNESS = 128.0  # pixels squared: slopes carry about 11 px into a gap; ours
CYCLES = 3  # of the solver, always as many: no question that waits for the device


def _enlarge(value: Tensor, factor: int) -> Tensor:
    """Bilinear between cell centres, (b, r, c) to (b, r * factor, c * factor), continued beyond the border."""
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
        share = F.avg_pool2d(is_visible[:, None].float(), side)[:, 0]
        mean = F.avg_pool2d(known[:, None], side)[:, 0] / share.clamp(min=1e-6)
        middle = known.flatten(1).sum(1) / is_visible.flatten(1).sum(1).clamp(min=1)
        middle = middle[:, None, None]
        is_known = share > 0
        surface = middle + fill_smooth(torch.where(is_known, mean - middle, 0.0), is_known, STIFFNESS / side**2,
                                       tolerance=0.0, iterations=CYCLES)
        return torch.where(is_visible, known, _enlarge(surface, side))
