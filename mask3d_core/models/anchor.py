"""A smooth surface through the visible depth, on the grid of patches: the start from which a decoder may predict.

A thin-plate spline under tension on the patch means, in the model's space (in inverse depth a plane is exactly linear).
It uses visible valid pixels only, so what is hidden stays hidden; with nothing visible it is 0, the data's mean.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from mask3d_core.shapes import Bool, Float

TENSION = 0.1  # share of membrane beside bending; ours
STIFFNESS = 1e-3  # how much the surface may leave the data, per fully visible patch; ours
PULL = 1e-6  # towards the data's mean where nothing at all is known


@functools.lru_cache(maxsize=8)
def _energy(grid: tuple[int, int]) -> Tensor:
    """float32 (n, n): bending plus tension energy of values on the grid, as a quadratic form."""
    def differences(size: int, order: int) -> Tensor:
        matrix = torch.eye(size, dtype=torch.float64)
        for _ in range(order):
            matrix = matrix[1:] - matrix[:-1]
        return matrix

    rows, columns = grid
    eye_r, eye_c = torch.eye(rows, dtype=torch.float64), torch.eye(columns, dtype=torch.float64)
    first = [torch.kron(differences(rows, 1), eye_c), torch.kron(eye_r, differences(columns, 1))]
    second = [torch.kron(differences(rows, 2), eye_c), torch.kron(eye_r, differences(columns, 2)),
              2**0.5 * torch.kron(differences(rows, 1), differences(columns, 1))]
    energy = sum(m.T @ m for m in second) + TENSION * sum(m.T @ m for m in first)
    return (STIFFNESS * energy + PULL * torch.eye(rows * columns, dtype=torch.float64)).float()


def spline_anchor(value: Float[Tensor, "b h w"], is_visible: Bool[Tensor, "b h w"], patch: int
                  ) -> Float[Tensor, "b h w"]:
    """The surface through the visible values.

    Args:
        value: the model's space; used only where visible.
        is_visible: valid and not hidden.
        patch: side of a patch.

    Returns:
        The visible values where visible; elsewhere the spline through the patch means, bilinear between patch centres.
    """
    batch, height, width = value.shape
    grid = (height // patch, width // patch)
    known = torch.where(is_visible, value, 0.0).float()
    share = F.avg_pool2d(is_visible[:, None].float(), patch)
    mean = F.avg_pool2d(known[:, None], patch) / share.clamp(min=1e-6)
    weight = share.flatten(1)
    with torch.autocast(value.device.type, enabled=False):
        system = _energy(grid).to(value.device) + torch.diag_embed(weight)
        factor, _ = torch.linalg.cholesky_ex(system)
        solved = torch.cholesky_solve((weight * mean.flatten(1))[..., None], factor)
    coarse = solved.view(batch, 1, *grid)
    fine = F.interpolate(F.pad(coarse, (1, 1, 1, 1), mode="replicate"), scale_factor=float(patch), mode="bilinear",
                         align_corners=False)[:, 0, patch:-patch, patch:-patch]
    return torch.where(is_visible, known, fine)
