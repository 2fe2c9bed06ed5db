"""The energy of a spline under tension on one grid: stretching and bending, their gradient and its diagonal."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

Weight = Tensor | float  # a conductance per edge, or one number for all


def _add(target: Tensor, value: Tensor, weight: Weight, sign: int) -> None:
    """target += sign * weight * value, in one pass."""
    if isinstance(weight, Tensor):
        target.addcmul_(value, weight, value=sign)
    else:
        target.add_(value, alpha=sign * weight)


@dataclass
class Level:
    """One grid.

    Args:
        free: (b, h, w), 1 at unknown cells, 0 at fixed ones.
        across: conductance of each pair of left/right neighbours, (b, h, w - 1) or one number.
        down: the same of upper/lower neighbours, (b, h - 1, w).
        bend: weights of u_xx, u_yy and u_xy squared; None = no bending.
        scaling: 1 / diagonal at free cells, 0 at fixed ones.
        kink: on coarse grids, what a correction costs more than these equations know: interpolated to the finer grid
            and cut off at fixed pixels, it has a kink there. Without it the cycles gain 0.3 instead of 0.8 each.
        factor: on the coarsest grid, the Cholesky factor of its equations (b, n, n).
        dense: the equations of a small grid with equal conductances as two products, see :func:`as_products`.
    """

    free: Tensor
    across: Weight
    down: Weight
    bend: tuple[Weight, Weight, Weight] | None
    scaling: Tensor | None = None
    kink: Tensor | None = None
    factor: Tensor | None = None
    dense: tuple[Tensor, Tensor] | None = None

    def apply(self, u: Tensor) -> Tensor:
        """Half the gradient of the energy, at free cells: the divergence of flows across the edges."""
        *batch, height, width = u.shape
        if self.dense is not None:
            right, left = self.dense
            here, twist = (u @ right).split(width, dim=-1)
            return (here + left @ torch.cat([u, twist], dim=-2)).mul_(self.free)
        slope_x, slope_y = u[..., 1:] - u[..., :-1], u[..., 1:, :] - u[..., :-1, :]
        all_x, all_y = u.new_zeros(*batch, height, width + 1), u.new_zeros(*batch, height + 1, width)
        flow_x, flow_y = all_x[..., 1:-1], all_y[..., 1:-1, :]
        _add(flow_x, slope_x, self.across, 1)
        _add(flow_y, slope_y, self.down, 1)
        if self.bend is not None:
            moment = slope_x[..., 1:] - slope_x[..., :-1]
            _add(flow_x[..., 1:], moment, self.bend[0], 1)
            _add(flow_x[..., :-1], moment, self.bend[0], -1)
            moment = slope_y[..., 1:, :] - slope_y[..., :-1, :]
            _add(flow_y[..., 1:, :], moment, self.bend[1], 1)
            _add(flow_y[..., :-1, :], moment, self.bend[1], -1)
            twist = slope_x[..., 1:, :] - slope_x[..., :-1, :]
            _add(flow_x[..., 1:, :], twist, self.bend[2], 1)
            _add(flow_x[..., :-1, :], twist, self.bend[2], -1)
        out = all_x[..., :-1] - all_x[..., 1:]
        out += all_y[..., :-1, :]
        out -= all_y[..., 1:, :]
        return out.mul_(self.free)

    def apply_to_correction(self, u: Tensor) -> Tensor:
        """As :meth:`apply`, with the cost of the kinks."""
        out = self.apply(u)
        return out if self.kink is None else out.addcmul_(u, self.kink)

    def diagonal(self) -> Tensor:
        """The diagonal of the equations before fixing cells."""
        out = torch.zeros_like(self.free)
        for rows, columns, weight in ((0, 1, self.across), (1, 0, self.down)):
            _scatter(out, rows, columns, weight, (1, 1))
        if self.bend is not None:
            _scatter(out, 0, 2, self.bend[0], (1, 4, 1))
            _scatter(out, 2, 0, self.bend[1], (1, 4, 1))
            height, width = out.shape[-2:]
            for row in (0, 1):
                for column in (0, 1):
                    out[..., row:height - 1 + row, column:width - 1 + column] += self.bend[2]
        return out


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # what is remembered must serve training too
def as_products(height: int, width: int, across: float, down: float, bend: tuple[float, float, float] | None,
                dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The equations of a grid with equal conductances as products from the right and from the left.

    With L = D1' D1 (stretching) and B = D2' D2 (bending) of one axis, half the gradient is
    u (a Lx + b0 Bx) + (d Ly + b1 By) u + b2 Ly u Lx. Four operations instead of thirty: on small grids, where each
    operation costs more than its numbers, most of the time.

    Returns:
        (width, 2 width) and (height, 2 height), on the CPU; remembered.
    """
    bend = bend or (0.0, 0.0, 0.0)

    def stretching_and_bending(length: int) -> tuple[Tensor, Tensor]:
        slope = torch.diff(torch.eye(length, dtype=dtype), dim=0)
        moment = torch.diff(slope, dim=0)
        return slope.T @ slope, moment.T @ moment

    stretch_x, bend_x = stretching_and_bending(width)
    stretch_y, bend_y = stretching_and_bending(height)
    return (torch.cat([across * stretch_x + bend[0] * bend_x, stretch_x], dim=1),
            torch.cat([down * stretch_y + bend[1] * bend_y, bend[2] * stretch_y], dim=1))


def _scatter(out: Tensor, rows: int, columns: int, weight: Weight, squares: tuple[int, ...]) -> None:
    """Add weight * square to each cell of a straight stencil that is ``rows`` + 1 high and ``columns`` + 1 wide."""
    height, width = out.shape[-2] - rows, out.shape[-1] - columns
    for place, square in enumerate(squares):
        row, column = place * (rows > 0), place * (columns > 0)
        out[..., row:height + row, column:width + column] += weight * square


def least(*weights: Weight) -> Weight:
    """The smallest of several weights, edge by edge."""
    least = weights[0]
    for weight in weights[1:]:
        least = torch.minimum(least, weight) if isinstance(least, Tensor) else min(least, weight)
    return least


def neighbours(weight: Weight, axis: int) -> tuple[Weight, Weight]:
    """A weight and the next one along an axis: all but the last, all but the first."""
    if not isinstance(weight, Tensor):
        return weight, weight
    length = max(weight.shape[axis] - 1, 0)
    return weight.narrow(axis, 0, length), weight.narrow(axis, min(1, weight.shape[axis]), length)
