"""The equations of a spline under tension, solved by conjugate gradients preconditioned with one multigrid V-cycle.

Coarse grids are discretised anew (stretching keeps its weight, bending loses a factor of four per level), corrections
travel by bilinear interpolation and its transpose, and the smoother is Chebyshev's (Adams, Brezina, Hu, Tuminaro,
"Parallel multigrid smoothing", J. Comp. Phys. 188, 2003). About 12 cycles for three digits, whatever is known.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mask3d_core.shapes import Float

_SMOOTHING = 3  # Chebyshev steps before and after each coarse correction
_LARGEST = 4.0  # bound of the eigenvalues of the Jacobi-scaled equations: each squared difference has at most 4 terms
_BAND = 18.0  # the smoother works on eigenvalues from _LARGEST / _BAND up to _LARGEST


@dataclass
class Level:
    """One grid: its free cells, conductances of stretching and bending, and the Jacobi scaling (0 where fixed)."""

    free: Tensor
    across: Tensor
    down: Tensor
    bend: tuple[Tensor, Tensor, Tensor] | None
    scaling: Tensor | None = None
    inverse: Tensor | None = None

    def apply(self, u: Tensor) -> Tensor:
        """Half the gradient of the energy, at free cells."""
        out = torch.zeros_like(u)
        flow = (u[..., 1:] - u[..., :-1]) * self.across
        out[..., 1:] += flow
        out[..., :-1] -= flow
        flow = (u[..., 1:, :] - u[..., :-1, :]) * self.down
        out[..., 1:, :] += flow
        out[..., :-1, :] -= flow
        if self.bend is not None:
            moment = (u[..., 2:] - 2 * u[..., 1:-1] + u[..., :-2]) * self.bend[0]
            out[..., 2:] += moment
            out[..., 1:-1] -= 2 * moment
            out[..., :-2] += moment
            moment = (u[..., 2:, :] - 2 * u[..., 1:-1, :] + u[..., :-2, :]) * self.bend[1]
            out[..., 2:, :] += moment
            out[..., 1:-1, :] -= 2 * moment
            out[..., :-2, :] += moment
            slope = u[..., 1:] - u[..., :-1]
            twist = (slope[..., 1:, :] - slope[..., :-1, :]) * self.bend[2]
            out[..., 1:, 1:] += twist
            out[..., 1:, :-1] -= twist
            out[..., :-1, 1:] -= twist
            out[..., :-1, :-1] += twist
        return out * self.free

    def diagonal(self) -> Tensor:
        """The diagonal of the equations before fixing cells."""
        out = torch.zeros_like(self.free)
        out[..., 1:] += self.across
        out[..., :-1] += self.across
        out[..., 1:, :] += self.down
        out[..., :-1, :] += self.down
        if self.bend is not None:
            for weight, axis in zip(self.bend[:2], (2, 1), strict=True):
                length = out.shape[axis] - 2
                for start, square in ((0, 1), (1, 4), (2, 1)):
                    out.narrow(axis, start, length).add_(weight, alpha=square)
            for rows in (slice(1, None), slice(None, -1)):
                for columns in (slice(1, None), slice(None, -1)):
                    out[..., rows, columns] += self.bend[2]
        return out


def build_levels(free: Float[Tensor, "b h w"], across: Float[Tensor, "b h w-1"], down: Float[Tensor, "b h-1 w"],
                 stiffness: float, depth: int) -> list[Level]:
    """The grids from fine to coarse, each half the size of the one before.

    Args:
        free: 1 at unknown cells, 0 at known ones. Height and width are multiples of 2^(depth - 1).
        across, down: conductances between neighbours, above 0.
        stiffness: weight of bending on the finest grid, in its pixels squared.
        depth: number of grids.
    """
    levels = []
    for number in range(depth):
        bend = None
        if stiffness > 0:  # bending falls with the square of the cell's side, stretching does not depend on it
            weight = stiffness / 4.0 ** number
            bend = (weight * torch.minimum(across[..., 1:], across[..., :-1]),
                    weight * torch.minimum(down[..., 1:, :], down[..., :-1, :]),
                    2 * weight * torch.minimum(torch.minimum(across[..., 1:, :], across[..., :-1, :]),
                                               torch.minimum(down[..., 1:], down[..., :-1])))
        level = Level(free, across, down, bend)
        level.scaling = free / level.diagonal().clamp(min=1e-12)
        levels.append(level)
        if number < depth - 1:
            # a coarse cell is free when all its pixels are; what is left over is the smoother's
            free = (F.avg_pool2d(free[:, None], 2)[:, 0] > 0.999).to(free.dtype)
            across, down = _coarse_across(across), _coarse_across(down.transpose(1, 2)).transpose(1, 2)
    b, height, width = free.shape
    basis = torch.eye(height * width, device=free.device, dtype=free.dtype).reshape(-1, 1, height, width)
    columns = level.apply(basis * free).flatten(2).permute(1, 2, 0)
    # fixed cells get 1 on the diagonal; so little on the free ones that only a frame with nothing known feels it
    matrix = columns + torch.diag_embed(1.0 - free.flatten(1) + 1e-6)
    level.inverse = torch.linalg.inv(matrix)
    return levels


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


def push_pull(value: Float[Tensor, "b h w"], known: Float[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
    """A first guess: means of known cells on ever coarser grids, interpolated back into the gaps."""
    if value.shape[1] % 2 or value.shape[2] % 2:
        mean = (value * known).flatten(1).sum(1) / known.flatten(1).sum(1).clamp(min=1)
        return torch.where(known > 0, value, mean[:, None, None])
    share = F.avg_pool2d(known[:, None], 2)[:, 0]
    mean = F.avg_pool2d((value * known)[:, None], 2)[:, 0] / share.clamp(min=1e-6)
    return torch.where(known > 0, value, _finer(push_pull(mean, (share > 0).to(known.dtype))))


def _smooth(level: Level, residual: Tensor) -> Tensor:
    """Chebyshev steps on ``apply(e) = residual`` from e = 0."""
    low = _LARGEST / _BAND
    middle, half = (_LARGEST + low) / 2, (_LARGEST - low) / 2
    rho = half / middle
    step = level.scaling * residual / middle
    e = step
    for _ in range(_SMOOTHING - 1):
        residual = residual - level.apply(step)
        following = 1.0 / (2.0 * middle / half - rho)
        step = following * rho * step + (2.0 * following / half) * level.scaling * residual
        rho = following
        e = e + step
    return e


def _v_cycle(levels: list[Level], residual: Tensor) -> Tensor:
    """An approximate solution of ``apply(e) = residual``; a symmetric operator, as conjugate gradients need."""
    level = levels[0]
    if len(levels) == 1:
        return (level.inverse @ residual.flatten(1)[:, :, None]).reshape(residual.shape) * level.free
    e = _smooth(level, residual)
    coarse = _coarser(residual - level.apply(e)) * levels[1].free
    e = e + _finer(_v_cycle(levels[1:], coarse)) * level.free
    return e + _smooth(level, residual - level.apply(e))


def conjugate_gradients(u: Float[Tensor, "b h w"], levels: list[Level], tolerance: float,
                        iterations: int) -> Float[Tensor, "b h w"]:
    """The minimum of the energy, starting at ``u``; fixed cells keep their values.

    Each frame has its own step lengths, and stands still once its residual (in the preconditioner's norm) has fallen
    by ``tolerance``; 0 means all iterations, without asking the device.
    """
    def dot(a: Tensor, c: Tensor) -> Tensor:
        return (a * c).flatten(1).sum(dim=1)[:, None, None]

    residual = -levels[0].apply(u)
    direction = _v_cycle(levels, residual)
    size = dot(residual, direction)
    goal = size * tolerance ** 2
    for _ in range(iterations):
        if tolerance > 0 and not bool((size > goal).any()):  # with tolerance 0: all iterations, and nobody waits
            break
        image = levels[0].apply(direction)
        length = torch.where(size > goal, size / dot(direction, image).clamp(min=1e-30), 0.0)
        u = u + length * direction
        residual = residual - length * image
        better = _v_cycle(levels, residual)
        new_size = torch.where(size > goal, dot(residual, better), size)
        direction = better + new_size / size.clamp(min=1e-30) * direction
        size = new_size
    return u
