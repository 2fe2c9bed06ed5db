"""Rays against solids, tile by tile, in plain tensor operations.

Every solid is a box, a cylinder or an ellipsoid stretched from unit size, so a ray is moved into the solid's own unit
space and tested there. The image is cut into tiles of ``TILE`` x ``TILE`` pixels; each tile keeps the solids that its
cone of rays can reach. Tiles are sorted by how many they keep, and the k-th candidate of all tiles that have one is
tested at once: no padding, no scatter, and every frame's numbers are the same whatever else is in the batch.
The ray parameter is depth along the optical axis, since rays are written as (x, y, 1) in the camera.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mask3d_core.sources.rooms.camera import NEAR
from mask3d_core.sources.rooms.solids import SPANS, Solids, apply

TILE = 8
FAR = 1e9
_TINY = 1e-12


def reaches(origin: list[Tensor], direction: list[Tensor], margin: list[Tensor], low: float, high: float) -> Tensor:
    """Whether the part low..high of a ray touches the unit box grown by ``margin``."""
    enter = leave = None
    for o, d, m in zip(origin, direction, margin):
        inverse = 1 / d
        middle = o * inverse
        reach = inverse.abs_().mul_(m + 1)
        near, far = (middle + reach).neg_(), reach.sub_(middle)
        enter = near if enter is None else torch.maximum(enter, near, out=enter)
        leave = far if leave is None else torch.minimum(leave, far, out=leave)
    return (enter < leave) & (leave > low) & (enter < high)


@dataclass(frozen=True)
class Candidates:
    """For tiles sorted by how many solids they keep: ``order`` the tile, ``first`` where its list starts in ``solids``;
    ``alive[k]`` how many tiles have a k-th candidate."""

    order: Tensor
    first: Tensor
    solids: Tensor
    alive: list[int]

    @staticmethod
    def of(keep: Tensor, offset: int, stride: int) -> Candidates:
        """From bool (f, t, p): solids ``offset`` .. ``offset + p`` of ``stride`` per frame."""
        frames, tiles, _ = keep.shape
        flat = keep.flatten(0, 1)
        counts = flat.sum(1)
        order = torch.argsort(counts, descending=True, stable=True)
        start = counts.cumsum(0) - counts
        tile, solid = flat.nonzero(as_tuple=True)
        solids = solid + offset + torch.div(tile, tiles, rounding_mode="floor") * stride
        histogram = torch.bincount(counts).tolist()
        alive, left = [], frames * tiles
        for count in histogram[:-1]:
            left -= count
            alive.append(left)
        return Candidates(order, start.index_select(0, order), solids, alive)

    def rounds(self):
        """For k = 0, 1, ...: how many of the sorted tiles take part, and their k-th solid."""
        for k, alive in enumerate(self.alive):
            yield alive, self.solids.index_select(0, self.first[:alive] + k)


@dataclass(frozen=True)
class Rays:
    """Camera rays of f frames: world direction = base + column * across + row * down, per frame (f, 3) each."""

    origin: Tensor
    base: Tensor
    across: Tensor
    down: Tensor
    rows: int
    columns: int

    @staticmethod
    def of(intrinsics: Tensor, pose: Tensor, height: int, width: int) -> Rays:
        """Rays whose parameter is z depth, for an image that is rounded up to whole tiles."""
        fx, fy, cx, cy = (v[:, None] for v in intrinsics.unbind(1))
        across, down = pose[:, :3, 0] / fx, pose[:, :3, 1] / fy
        base = pose[:, :3, 2] - cx * across - cy * down
        return Rays(pose[:, :3, 3], base, across, down, -(-height // TILE), -(-width // TILE))

    def tiles(self) -> tuple[Tensor, Tensor]:
        """First row and column of each tile, float32 (t,)."""
        index = torch.arange(self.rows * self.columns, device=self.base.device)
        row = torch.div(index, self.columns, rounding_mode="floor")
        return (row * TILE).to(torch.float32), ((index - row * self.columns) * TILE).to(torch.float32)

    def directions(self) -> list[Tensor]:
        """World directions, three of (f, t, TILE, TILE)."""
        row, column = self.tiles()
        step = torch.arange(TILE, device=row.device, dtype=torch.float32)
        x, y = (column[:, None] + step)[:, None, :], (row[:, None] + step)[:, :, None]
        return [(self.base[:, i, None, None, None] + self.across[:, i, None, None, None] * x)
                + self.down[:, i, None, None, None] * y for i in range(3)]


def first_hits(solids: Solids, rays: Rays, spread: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest solid on every camera ray.

    Args:
        solids: f frames.
        rays: of the same frames.
        spread: (f,) half a tile's diagonal at depth 1, metres.

    Returns:
        Depth (f, t, TILE, TILE), ``FAR`` where nothing is hit; index of the solid, -1 where nothing is hit.
    """
    frames, total = solids.reach.shape
    row, column = rays.tiles()
    device = row.device
    origin = torch.stack(apply(solids.matrix, *(o[:, None] for o in rays.origin.unbind(1)), point=True), -1)
    base, across, down = (torch.stack(apply(solids.matrix, *(v[:, None] for v in vector.unbind(1)), point=False), -1)
                          for vector in (rays.base, rays.across, rays.down))
    table = torch.cat([origin, base, across, down], -1).flatten(0, 1)  # (f * p, 12)

    offset = solids.center - rays.origin[:, None]
    x, y, z = offset.unbind(-1)
    farthest = torch.sqrt(x * x + y * y + z * z) + solids.reach
    margin = (spread[:, None] * farthest)[..., None] / solids.half
    depth = torch.full((frames * len(row), TILE, TILE), FAR, device=device)
    index = torch.full(depth.shape, -1, dtype=torch.int32, device=device)
    middle = (TILE - 1) / 2
    step = torch.arange(TILE, device=device, dtype=torch.float32)
    tile_row, tile_column = row.repeat(frames), column.repeat(frames)
    for kind, span in solids.spans():
        if span.start == span.stop:
            continue
        rows_at = rays_at = None
        direction = []
        for i in range(3):
            b, a, d = base[:, None, span, i], across[:, None, span, i], down[:, None, span, i]
            columns_at = b + a * (column[:rays.columns, None] + middle)  # (f, columns, p)
            rows_at = d * (row[::rays.columns, None] + middle)  # (f, rows, p)
            direction.append((rows_at[:, :, None] + columns_at[:, None]).flatten(1, 2))
        keep = reaches([origin[:, None, span, i] for i in range(3)], direction, [margin[:, None, span, i] for i in range(3)],
                       NEAR, FAR)
        keep &= solids.is_active[:, None, span]
        candidates = Candidates.of(keep, span.start, total)
        order = candidates.order
        best, best_index = depth.index_select(0, order), index.index_select(0, order)
        sorted_row, sorted_column = tile_row.index_select(0, order), tile_column.index_select(0, order)
        for alive, solid in candidates.rounds():
            values = table.index_select(0, solid)
            local_origin = [values[:, i, None, None] for i in range(3)]
            local = []
            for i in range(3):
                along = (values[:, 3 + i, None] + values[:, 6 + i, None] * (sorted_column[:alive, None] + step))[:, None, :]
                local.append(along + (values[:, 9 + i, None] * (sorted_row[:alive, None] + step))[:, :, None])
            enter, leave = SPANS[kind](local_origin, local)
            is_nearer = (enter < torch.minimum(leave, best[:alive])) & (enter > NEAR)
            best[:alive] = torch.where(is_nearer, enter, best[:alive])
            best_index[:alive] = torch.where(is_nearer, (solid % total).to(torch.int32)[:, None, None], best_index[:alive])
        depth[order], index[order] = best, best_index
    shape = (frames, len(row), TILE, TILE)
    return depth.reshape(shape), index.reshape(shape)


def _may_shade(solids: Solids, span: slice, center: list[Tensor], box: list[Tensor], lamp: list[Tensor], radius: Tensor) -> Tensor:
    """Which solids touch the bundle of rays from a tile's box of points to a round lamp, bool (f, t, p).

    In unit space the bundle lies, on each axis, within margin ``a + b t`` of its middle ray; both sides of
    ``|o + d t| <= 1 + a + b t`` bound t.
    """
    matrix = solids.matrix[:, None, span]
    enter = torch.zeros((), device=radius.device)
    leave = torch.zeros((), device=radius.device)  # minus 1
    for i in range(3):
        row = matrix[..., i, :]
        x, y, z = (row[..., j] for j in range(3))
        o = (x * center[0][..., None]).add_(y * center[1][..., None]).add_(z * center[2][..., None]).add_(row[..., 3])
        margin = (x.abs() * box[0][..., None]).add_(y.abs() * box[1][..., None]).add_(z.abs() * box[2][..., None])
        widen = (radius[:, None] / solids.half[:, span, i])[:, None] - margin
        d = lamp[i][:, None, span] - o
        room = margin.add_(1)
        for slope, rest in ((d - widen, room - o), (d.neg_().sub_(widen), room + o)):  # slope * t <= rest
            # From below if the slope falls, from above if it rises; counted from the far end so that a side that never
            # binds gives a huge number of the right sign.
            leave = torch.minimum(leave, (rest - slope).div_(slope.clamp(min=_TINY)))
            enter = torch.maximum(enter, rest.div_(slope.clamp_(max=-_TINY)))
    return (enter <= leave.add_(1)) & solids.is_active[:, None, span]


def shadowed(solids: Solids, points: list[Tensor], light: Tensor, jitter: list[Tensor], radius: Tensor, wanted: Tensor) -> Tensor:
    """Which points a lamp does not reach.

    Args:
        solids: f frames.
        points: x, y, z of (f, t, TILE, TILE), already lifted off their surface.
        light: (f, 3) its middle.
        jitter: x, y, z of (TILE, TILE), where on a lamp of radius 1 each pixel looks.
        radius: (f,) of the lamp, metres.
        wanted: bool (f, t), tiles that the lamp could light at all.

    Returns:
        bool (f, t, TILE, TILE); False in tiles that are not wanted.
    """
    frames, total = solids.reach.shape
    tiles = points[0].shape[1]
    low = [p.amin((2, 3)) for p in points]
    high = [p.amax((2, 3)) for p in points]
    center = [(a + b) / 2 for a, b in zip(low, high)]
    box = [(b - a) / 2 for a, b in zip(low, high)]
    lamp = apply(solids.matrix, *(v[:, None] for v in light.unbind(1)), point=True)
    table = torch.cat([solids.matrix.flatten(2), torch.stack(lamp, -1), radius[:, None, None].expand(-1, total, 1)], -1).flatten(0, 1)
    through = torch.zeros(frames * tiles, TILE, TILE, device=light.device)  # share of the way that lies inside a solid
    flat = [p.flatten(0, 1) for p in points]
    for kind, span in solids.spans():
        if span.start == span.stop:
            continue
        keep = _may_shade(solids, span, center, box, lamp, radius) & wanted[..., None]
        candidates = Candidates.of(keep, span.start, total)
        order = candidates.order
        best = through.index_select(0, order)
        px, py, pz = (p.index_select(0, order) for p in flat)
        for alive, solid in candidates.rounds():
            values = table.index_select(0, solid)[:, :, None, None]
            origin, direction = [], []
            for i in range(3):
                a, b, c, d = (values[:, 4 * i + j] for j in range(4))
                o = (a * px[:alive]).add_(b * py[:alive]).add_(c * pz[:alive]).add_(d)
                shift = (a * jitter[0] + b * jitter[1] + c * jitter[2]) * values[:, 15]
                origin.append(o)
                direction.append((values[:, 12 + i] + shift).sub_(o))
            enter, leave = SPANS[kind](origin, direction)
            inside = leave.clamp_(max=1).sub_(enter.clamp_(min=0))
            torch.maximum(best[:alive], inside, out=best[:alive])
        through[order] = best
    return (through > 0).reshape(frames, tiles, TILE, TILE)
