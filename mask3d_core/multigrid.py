"""The equations of a spline under tension, solved by conjugate gradients preconditioned with one multigrid V-cycle.

Coarse grids are discretised anew (stretching keeps its weight, bending loses a factor of four per level), corrections
travel by bilinear interpolation and its transpose, and the smoother is Chebyshev's (Adams, Brezina, Hu, Tuminaro,
"Parallel multigrid smoothing", J. Comp. Phys. 188, 2003). The start comes from the coarser grids, solved first.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mask3d_core.shapes import Float
from mask3d_core.spline_energy import Level, Weight, as_products, least, neighbours

_SMOOTHING = 3  # Chebyshev steps before and after each coarse correction
_LARGEST = 4.0  # bound of the eigenvalues of the Jacobi-scaled equations: each squared difference has at most 4 terms
_BAND = 25.0  # the smoother works on eigenvalues from _LARGEST / _BAND up to _LARGEST
_KINK = 0.1  # cost of a kink per fixed neighbour, as a share of the diagonal; this and the next found by trial
_KINK_BELOW = 0.5  # share of the finer grid's costs that a coarse cell inherits from each of its four pixels
_SMALL = 5000  # cells of a grid whose equations are cheaper as matrix products, on a CPU
_FIRST = 2  # cycles on each coarser grid on the way to the start


def build_levels(free: Float[Tensor, "b h w"], across: Weight, down: Weight, stiffness: float,
                 depth: int) -> list[Level]:
    """The grids from fine to coarse, each half the size of the one before.

    Args:
        free: 1 at unknown cells, 0 at known ones. Height and width are multiples of 2^(depth - 1).
        across, down: conductances between neighbours, above 0: two tensors or two numbers.
        stiffness: weight of bending on the finest grid, in its pixels squared.
        depth: number of grids.
    """
    levels = []
    for number in range(depth):
        bend = None
        if stiffness > 0:  # bending falls with the square of the cell's side, stretching does not depend on it
            weight = stiffness / 4.0 ** number
            bend = (weight * least(*neighbours(across, 2)), weight * least(*neighbours(down, 1)),
                    2 * weight * least(*neighbours(across, 1), *neighbours(down, 2)))
        level = Level(free, across, down, bend)
        height, width = free.shape[1:]
        if free.device.type == "cpu" and not isinstance(across, Tensor) and height * width <= _SMALL:
            level.dense = as_products(height, width, across, down, bend, free.dtype)
        diagonal = level.diagonal()
        if number > 0:
            level.kink = free * _KINK * _fixed_neighbours(free) * diagonal
            if levels[-1].kink is not None:
                level.kink += free * (_KINK_BELOW * 4) * F.avg_pool2d(levels[-1].kink[:, None], 2)[:, 0]
            diagonal = diagonal + level.kink
        level.scaling = free / diagonal.clamp(min=1e-12)
        levels.append(level)
        if number < depth - 1:
            # a coarse cell is free when all its pixels are; what is left over is the smoother's
            free = (F.avg_pool2d(free[:, None], 2)[:, 0] > 0.999).to(free.dtype)
            if isinstance(across, Tensor):
                across, down = _coarse_across(across), _coarse_across(down.transpose(1, 2)).transpose(1, 2)
    b, height, width = free.shape
    basis = torch.eye(height * width, device=free.device, dtype=free.dtype).reshape(-1, 1, height, width)
    columns = level.apply_to_correction(basis * free).flatten(2).permute(1, 2, 0)
    # fixed cells get 1 on the diagonal; so little on the free ones that only a frame with nothing known feels it
    matrix = columns + torch.diag_embed(1.0 - free.flatten(1) + 1e-5)
    level.factor = torch.linalg.cholesky_ex(matrix).L
    return levels


def _fixed_neighbours(free: Tensor) -> Tensor:
    """How many of a cell's four neighbours are fixed; the picture's border counts as free."""
    fixed = F.pad(1.0 - free, (1, 1, 1, 1))
    return fixed[:, 1:-1, 2:] + fixed[:, 1:-1, :-2] + fixed[:, 2:, 1:-1] + fixed[:, :-2, 1:-1]


def _coarse_across(across: Tensor) -> Tensor:
    """Conductances of a grid of half the size: half an edge, an edge and half an edge in series, two rows parallel."""
    resistance = 1.0 / across
    series = 0.5 * resistance[..., 0:-2:2] + resistance[..., 1:-1:2] + 0.5 * resistance[..., 2::2]
    rows = 1.0 / series
    return rows[..., 0::2, :] + rows[..., 1::2, :]


def _finer(u: Tensor) -> Tensor:
    """Bilinear interpolation to twice the size, cell centres to cell centres."""
    return F.interpolate(u[:, None], scale_factor=2, mode="bilinear", align_corners=False)[:, 0]


def _coarser(u: Tensor) -> Tensor:
    """The transpose of :func:`_finer`."""
    for _ in range(2):
        even, odd = u[..., 0::2], u[..., 1::2]
        half = 0.75 * (even + odd)
        half[..., :-1] += 0.25 * even[..., 1:]
        half[..., 1:] += 0.25 * odd[..., :-1]
        half[..., 0] += 0.25 * even[..., 0]
        half[..., -1] += 0.25 * odd[..., -1]
        u = half.transpose(1, 2)
    return u


def _smooth(level: Level, residual: Tensor) -> Tensor:
    """Chebyshev steps on ``apply(e) = residual`` from e = 0."""
    low = _LARGEST / _BAND
    middle, half = (_LARGEST + low) / 2, (_LARGEST - low) / 2
    rho = half / middle
    step = level.scaling * residual * (1.0 / middle)
    e = step
    for _ in range(_SMOOTHING - 1):
        residual = residual - level.apply_to_correction(step)
        following = 1.0 / (2.0 * middle / half - rho)
        step = torch.addcmul(step * (following * rho), level.scaling, residual, value=2.0 * following / half)
        rho = following
        e = e + step
    return e


def _v_cycle(levels: list[Level], residual: Tensor) -> Tensor:
    """An approximate solution of ``apply(e) = residual``; a symmetric operator, as conjugate gradients need."""
    level = levels[0]
    if len(levels) == 1:
        solution = torch.cholesky_solve(residual.flatten(1)[:, :, None], level.factor)
        return solution.reshape(residual.shape) * level.free
    e = _smooth(level, residual)
    coarse = _coarser(residual - level.apply_to_correction(e)) * levels[1].free
    e = e + _finer(_v_cycle(levels[1:], coarse)) * level.free
    return e + _smooth(level, residual - level.apply_to_correction(e))


def solve(value: Float[Tensor, "b h w"], levels: list[Level], tolerance: float,
          iterations: int) -> Float[Tensor, "b h w"]:
    """The minimum of the energy; fixed cells keep their values.

    Args:
        value: the fixed cells' values; anything elsewhere.
        levels: as :func:`build_levels` gives them.
        tolerance, iterations: as :func:`_conjugate_gradients`.
    """
    known = 1.0 - levels[0].free
    value = value * known
    if len(levels) == 1:
        start = value
    else:  # the mean of the fixed pixels of each coarse cell, solved there first
        share = F.avg_pool2d(known[:, None], 2)[:, 0]
        coarse = F.avg_pool2d(value[:, None], 2)[:, 0] / share.clamp(min=1e-6)
        start = value + _finer(solve(coarse, levels[1:], 0.0, _FIRST)) * levels[0].free
    return _conjugate_gradients(start, levels, tolerance, iterations)


def _conjugate_gradients(u: Tensor, levels: list[Level], tolerance: float, iterations: int) -> Tensor:
    """From ``u`` towards the minimum; each frame has its own step lengths.

    A frame stands still once its residual (in the preconditioner's norm) has fallen by ``tolerance``; 0 means all
    iterations, without asking the device.
    """
    def dot(a: Tensor, c: Tensor) -> Tensor:
        return torch.linalg.vecdot(a.flatten(1), c.flatten(1))[:, None, None]

    residual = -levels[0].apply(u)
    direction = _v_cycle(levels, residual)
    size = dot(residual, direction)
    goal = size * tolerance ** 2
    for number in range(iterations):
        if tolerance > 0 and not bool((size > goal).any()):
            break
        image = levels[0].apply(direction)
        length = torch.where(size > goal, size / dot(direction, image).clamp(min=1e-30), 0.0)
        u = u + length * direction
        if number == iterations - 1:
            break
        residual = residual - length * image
        better = _v_cycle(levels, residual)
        new_size = torch.where(size > goal, dot(residual, better), size)
        direction = better + new_size / size.clamp(min=1e-30) * direction
        size = new_size
    return u
