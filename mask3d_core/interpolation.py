"""Filling pictures from scattered known pixels: exact nearest neighbour, and a smooth surface. torch alone, batched.

The surface minimises, with the known pixels held fast,

    sum over neighbours w (u_p - u_q)^2  +  stiffness * sum w (u_xx^2 + 2 u_xy^2 + u_yy^2)

which is a spline under tension (Smith and Wessel, "Gridding with continuous curvature splines in tension", Geophysics
55(3), 1990): a membrane at distances beyond sqrt(stiffness) pixels, a bending plate below, so slopes of the known
parts carry on into the gaps. w are conductances, 1 everywhere or lower across edges of a guide picture. ``multigrid``
solves the equations.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mask3d_core.multigrid import build_levels, solve
from mask3d_core.shapes import Bool, Float, Int

_COARSEST = 400  # cells of the coarsest grid, at most; it is solved directly


def nearest_known(is_known: Bool[Tensor, "b h w"]) -> tuple[Int[Tensor, "b h w"], Int[Tensor, "b h w"]]:
    """The known pixel nearest to each pixel, exactly (Euclidean, between pixel centres).

    Columns first, then along rows over growing offsets until no larger offset can win (the separable transform of
    Felzenszwalb and Huttenlocher 2012, without its envelope). Ties go to the pixel found first, always the same one.

    Args:
        is_known: (b, h, w); a frame without any known pixel gets numbers that mean nothing.

    Returns:
        flat index row * w + column of the nearest known pixel, int64 (b, h, w), and its squared distance in pixels,
        int32 (b, h, w).
    """
    height, width = is_known.shape[1:]
    far = 2 * (height + width)
    row = torch.arange(height, device=is_known.device, dtype=torch.int32)[None, :, None]
    column = torch.arange(width, device=is_known.device, dtype=torch.int32).expand(is_known.shape).contiguous()
    above = torch.where(is_known, row, -far).cummax(dim=1).values
    below = torch.where(is_known, row, 2 * far).flip(1).cummin(dim=1).values.flip(1)
    nearest_row = torch.where(row - above <= below - row, above, below)
    gap = (nearest_row - row).abs()
    in_column = torch.where(gap >= height, far * far, gap * gap)

    best, best_column = in_column.clone(), column.clone()
    for offset in range(1, width):
        if offset % 8 == 1 and int(best.max()) <= offset * offset:
            break
        for here, there in ((slice(offset, None), slice(None, -offset)), (slice(None, -offset), slice(offset, None))):
            candidate = in_column[..., there] + offset * offset
            is_nearer = candidate < best[..., here]
            best[..., here] = torch.where(is_nearer, candidate, best[..., here])
            best_column[..., here] = torch.where(is_nearer, column[..., there], best_column[..., here])
    rows = nearest_row.gather(2, best_column.long()).clamp(0, height - 1)
    return (rows * width + best_column).long(), best


def fill_nearest(value: Float[Tensor, "b h w"], is_known: Bool[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
    """Every pixel takes the value of the nearest known one."""
    index, _ = nearest_known(is_known)
    return value.flatten(1).gather(1, index.flatten(1)).reshape(value.shape)


def plane_trend(value: Float[Tensor, "b h w"], is_known: Bool[Tensor, "b h w"], ridge: float
                ) -> Float[Tensor, "b h w"]:
    """The plane a + b row + c column that fits the known pixels best, with a pull of its slopes towards 0.

    Minimises the mean over *all* pixels of (value - plane)^2 at known ones, plus ridge (b^2 + c^2): the fewer pixels are
    known, the stronger the pull.

    Args:
        value: (b, h, w) any unit; only known pixels are used.
        is_known: (b, h, w); a frame with nothing known gets 0.
        ridge: above 0; the picture's longer side is 1, so the coordinates of all pixels have a mean square of 0.08.

    Returns:
        (b, h, w), the plane everywhere.
    """
    b, height, width = value.shape
    scale = 1.0 / max(height, width)
    row = (torch.arange(height, device=value.device, dtype=value.dtype) - (height - 1) / 2) * scale
    column = (torch.arange(width, device=value.device, dtype=value.dtype) - (width - 1) / 2) * scale
    basis = torch.stack([torch.ones_like(value[0]), row[:, None].expand(height, width), column.expand(height, width)])
    basis = basis.flatten(1)
    weight = is_known.flatten(1).to(value.dtype) / (height * width)
    moments = torch.einsum("in,jn,bn->bij", basis, basis, weight)
    moments = moments + torch.diag(value.new_tensor([1e-9, ridge, ridge]))
    target = (weight * torch.where(is_known, value, 0.0).flatten(1)) @ basis.T
    slopes = torch.cholesky_solve(target[:, :, None], torch.linalg.cholesky_ex(moments).L)[:, :, 0]
    return (slopes @ basis).reshape(b, height, width)


def fill_smooth(value: Float[Tensor, "b h w"], is_known: Bool[Tensor, "b h w"], stiffness: float,
                across: Float[Tensor, "b h w-1"] | None = None, down: Float[Tensor, "b h-1 w"] | None = None,
                tolerance: float = 1e-2, iterations: int = 60) -> Float[Tensor, "b h w"]:
    """The spline under tension through the known pixels.

    Args:
        value: (b, h, w) any unit; only known pixels are used. Each frame should be roughly centred on 0.
        is_known: (b, h, w).
        stiffness: weight of bending against stretching, in pixels squared; 0 is the membrane (Laplace's equation).
        across: conductance of each pair of left/right neighbours, above 0; None = 1 for all pairs.
        down: conductance of each pair of upper/lower neighbours; given if ``across`` is.
        tolerance: a frame is done when its residual (in the preconditioner's norm) has fallen by this factor from a
            start that the coarser grids give; 0 = all iterations, and the device is never asked.
        iterations: at most this many.

    Returns:
        (b, h, w): ``value`` where known, the surface elsewhere; 0 throughout for a frame with nothing known.
    """
    height, width = value.shape[1:]
    depth = 1
    while -(-height // 2 ** (depth - 1)) * -(-width // 2 ** (depth - 1)) > _COARSEST:
        depth += 1
    bottom, right = -height % 2 ** (depth - 1), -width % 2 ** (depth - 1)
    value = F.pad(torch.where(is_known, value, 0.0), (0, right, 0, bottom))
    free = F.pad((~is_known).to(value.dtype), (0, right, 0, bottom), value=1.0)
    if across is None:
        across = down = 1.0
    else:
        across = F.pad(across, (0, right, 0, bottom), value=1.0)
        down = F.pad(down, (0, right, 0, bottom), value=1.0)
    surface = solve(value, build_levels(free, across, down, stiffness, depth), tolerance, iterations)
    return surface[:, :height, :width]
