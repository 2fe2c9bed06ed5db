"""Boxes, cylinders and ellipsoids, each stretched from unit size, and where a ray enters and leaves one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mask3d_core.sources.rooms.parts import KINDS


@dataclass(frozen=True)
class Solids:
    """Solids of a chunk of frames, f frames with p solids each.

    ``matrix`` (f, p, 3, 4): world to unit space, the last column the shift. ``half`` (f, p, 3) metres,
    ``is_active`` (f, p), ``reach`` (f, p) radius of the bounding sphere, ``center`` (f, p, 3), ``counts`` per kind.
    """

    matrix: Tensor
    half: Tensor
    center: Tensor
    reach: Tensor
    is_active: Tensor
    counts: tuple[int, int, int]

    @staticmethod
    def of(parts: dict) -> Solids:
        """From :meth:`Parts.packed`, one row per frame."""
        half, center = parts["half"], parts["center"]
        rotation = parts["rotation"].unflatten(-1, (3, 3)).transpose(-1, -2)  # world to local
        linear = rotation / half[..., None]
        x, y, z = center.unbind(-1)
        shift = -(linear[..., 0] * x[..., None] + linear[..., 1] * y[..., None] + linear[..., 2] * z[..., None])
        hx, hy, hz = half.unbind(-1)
        return Solids(torch.cat([linear, shift[..., None]], -1), half, center, torch.sqrt(hx * hx + hy * hy + hz * hz),
                      parts["is_active"], parts["counts"])

    def spans(self) -> list[tuple[str, slice]]:
        """The range of each kind."""
        ends = [0]
        for count in self.counts:
            ends.append(ends[-1] + count)
        return [(kind, slice(ends[i], ends[i + 1])) for i, kind in enumerate(KINDS)]


def apply(matrix: Tensor, x: Tensor, y: Tensor, z: Tensor, point: bool) -> list[Tensor]:
    """Rows of ``matrix`` (..., 3, 4) on a vector, or with the shift on a point; component by component."""
    rows = []
    for i in range(3):
        value = matrix[..., i, 0] * x + matrix[..., i, 1] * y + matrix[..., i, 2] * z
        rows.append(value + matrix[..., i, 3] if point else value)
    return rows


def span_box(origin: list[Tensor], direction: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Where a ray enters and leaves the unit box; enters after it leaves when it misses."""
    enter = leave = None
    for o, d in zip(origin, direction):
        inverse = d.reciprocal()
        middle = inverse * o
        reach = inverse.abs_()
        near, far = (middle + reach).neg_(), reach.sub_(middle)
        enter = near if enter is None else torch.maximum(enter, near, out=enter)
        leave = far if leave is None else torch.minimum(leave, far, out=leave)
    return enter, leave


def _span_quadric(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Roots of a t^2 + 2 b t + c, a > 0; both the same where there are none."""
    root = (b * b).sub_(a * c).clamp_(min=0).sqrt_()
    inverse = a.reciprocal()
    return (b + root).mul_(inverse).neg_(), root.sub_(b).mul_(inverse)


def span_cylinder(origin: list[Tensor], direction: list[Tensor]) -> tuple[Tensor, Tensor]:
    """As :func:`span_box` for the unit cylinder about z."""
    (ox, oy, oz), (dx, dy, dz) = origin, direction
    enter, leave = _span_quadric(dx * dx + dy * dy, ox * dx + oy * dy, ox * ox + oy * oy - 1)
    inverse = 1 / dz
    middle = oz * inverse
    reach = inverse.abs_()
    return torch.maximum(enter, -middle - reach), torch.minimum(leave, reach - middle)


def span_ellipsoid(origin: list[Tensor], direction: list[Tensor]) -> tuple[Tensor, Tensor]:
    """As :func:`span_box` for the unit sphere."""
    (ox, oy, oz), (dx, dy, dz) = origin, direction
    return _span_quadric(dx * dx + dy * dy + dz * dz, ox * dx + oy * dy + oz * dz, ox * ox + oy * oy + oz * oz - 1)


SPANS = {"box": span_box, "cylinder": span_cylinder, "ellipsoid": span_ellipsoid}
