"""What each pixel sees: the nearest solid, or the shell of the room and what lies behind its openings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mask3d_core.sources.rooms.layout import Scene
from mask3d_core.sources.rooms.parts import STRUCTURE
from mask3d_core.sources.rooms.solids import Solids
from mask3d_core.sources.rooms.trace import TILE, Rays, first_hits


@dataclass
class Surface:
    """What every pixel sees; tensors (f, t, TILE, TILE), or lists of three of them.

    ``depth`` metres along the optical axis, ``slant`` cosine between the ray and the normal, ``label`` row in the
    frame's table of labels, ``normal`` and ``point`` in the world, ``local`` metres in the part's own axes,
    ``facing`` the axis (0, 1, 2) of the part that the normal lies nearest to.
    """

    depth: Tensor
    slant: Tensor
    label: Tensor
    normal: list[Tensor]
    point: list[Tensor]
    local: list[Tensor]
    half: list[Tensor]
    facing: Tensor


def dot(a: list[Tensor], b: list[Tensor]) -> Tensor:
    """The inner product of two vectors that are given as three tensors (...) of their x, y and z each."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def look_up(table: Tensor, row: Tensor) -> list[Tensor]:
    """The columns of ``table`` (n, c) at ``row`` (...), c contiguous tensors: faster than gathering rows."""
    index = row.flatten()
    return [column.index_select(0, index).reshape(row.shape) for column in table.t().contiguous()]


def _shell(scene: Scene, rays: Rays, direction: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Depth of the room's own walls or of what lies behind an opening, its label row, and the axis of its normal."""
    inverse = [1 / d for d in direction]

    def wide(v: Tensor) -> Tensor:
        return v[:, None, None, None]

    def leave(low, high):
        far = [torch.maximum((wide(low[:, i]) - wide(rays.origin[:, i])) * inverse[i],
                             (wide(high[:, i]) - wide(rays.origin[:, i])) * inverse[i]) for i in range(3)]
        depth = torch.minimum(torch.minimum(far[0], far[1]), far[2])
        axis = torch.where(far[2] <= depth, 2, torch.where(far[1] <= depth, 1, 0))
        return depth, axis

    depth, axis = leave(torch.zeros_like(scene.size), scene.size)
    point = [wide(rays.origin[:, i]) + depth * direction[i] for i in range(3)]
    is_high = [d > 0 for d in direction]
    # 0 floor, 1 ceiling, 2..5 walls: y = 0, x = W, y = D, x = 0
    label = torch.where(axis == 2, is_high[2].long(), torch.where(axis == 1, torch.where(is_high[1], 4, 2),
                                                                  torch.where(is_high[0], 3, 5)))
    result_depth, result_label, result_axis = depth, label, axis
    for wall in range(4):
        box = scene.openings[:, wall]
        across = wall % 2  # walls 0 and 2 run along x
        inside = ((label == 2 + wall) & (point[across] > wide(box[:, across])) & (point[across] < wide(box[:, 3 + across]))
                  & (point[2] > wide(box[:, 2])) & (point[2] < wide(box[:, 5])))
        behind, behind_axis = leave(box[:, :3], box[:, 3:])
        is_back = behind_axis == 1 - across
        result_depth = torch.where(inside, behind, result_depth)
        result_label = torch.where(inside, torch.where(is_back, 7 + 2 * wall, 6 + 2 * wall), result_label)
        result_axis = torch.where(inside, behind_axis, result_axis)
    return result_depth, result_label, result_axis


def find_surfaces(scene: Scene, rays: Rays, spread: Tensor) -> Surface:
    """What every camera ray of a chunk of frames sees first."""
    solids = Solids.of(scene.parts)
    direction = rays.directions()
    depth, label, axis = _shell(scene, rays, direction)
    hit_depth, index = first_hits(solids, rays, spread)
    is_part = hit_depth < depth
    depth = torch.where(is_part, hit_depth, depth)
    frames, total = solids.reach.shape
    flat = (index.to(torch.int64).clamp(min=0) + torch.arange(frames, device=index.device)[:, None, None, None] * total)
    kind_of = torch.arange(total, device=index.device)
    first_round, first_ball = solids.counts[0], solids.counts[0] + solids.counts[1]
    kind = (kind_of >= first_round).to(torch.float32) + (kind_of >= first_ball)
    table = torch.cat([scene.parts["center"], scene.parts["half"], scene.parts["rotation"],
                       kind[None, :, None].expand(frames, -1, 1)], -1).flatten(0, 1)
    values = look_up(table, flat)
    center, half, rotation, kind = values[:3], list(values[3:6]), values[6:15], values[15]

    point = [rays.origin[:, i, None, None, None] + depth * direction[i] for i in range(3)]
    offset = [p - c for p, c in zip(point, center)]
    local = [rotation[i] * offset[0] + rotation[3 + i] * offset[1] + rotation[6 + i] * offset[2] for i in range(3)]
    unit = [p / h for p, h in zip(local, half)]
    size = [u.abs() for u in unit]
    is_box, is_ball = kind == 0, kind == 2
    face = torch.where((size[2] >= size[0]) & (size[2] >= size[1]), 2, torch.where(size[1] >= size[0], 1, 0))
    is_cap = (kind == 1) & (size[2] * size[2] > size[0] * size[0] + size[1] * size[1])
    flat_face = torch.where(is_cap, 2, face)
    is_flat = is_box | is_cap
    normal = []
    for i in range(3):
        on_face = torch.where(flat_face == i, torch.where(unit[i] > 0, 1.0, -1.0), 0.0)
        curved = torch.where(is_ball | (i < 2), unit[i] / half[i], 0.0)
        normal.append(torch.where(is_flat, on_face, curved))
    length = torch.sqrt(dot(normal, normal)).clamp(min=1e-9)
    normal = [n / length for n in normal]
    bend = [n.abs() for n in normal]
    facing = torch.where((bend[2] >= bend[0]) & (bend[2] >= bend[1]), 2, torch.where(bend[1] >= bend[0], 1, 0))
    world = [rotation[3 * i] * normal[0] + rotation[3 * i + 1] * normal[1] + rotation[3 * i + 2] * normal[2] for i in range(3)]
    for i in range(3):
        shell = torch.where(axis == i, torch.where(direction[i] > 0, -1.0, 1.0), 0.0)
        world[i] = torch.where(is_part, world[i], shell)
        local[i] = torch.where(is_part, local[i], point[i])
    facing = torch.where(is_part, facing, axis)
    label = torch.where(is_part, index.to(torch.int64) + STRUCTURE, label)
    ray_length = torch.sqrt(dot(direction, direction))
    slant = -dot(world, direction) / ray_length
    return Surface(depth, slant, label, world, point, local, half, facing)


def to_image(values: Tensor, rays: Rays) -> Tensor:
    """(f, t, TILE, TILE) to (f, rows * TILE, columns * TILE)."""
    frames = values.shape[0]
    return values.reshape(frames, rays.rows, rays.columns, TILE, TILE).transpose(2, 3).reshape(
        frames, rays.rows * TILE, rays.columns * TILE)
