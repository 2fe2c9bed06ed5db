"""From rooms and cameras to pictures: what each pixel sees, what it is made of, and how it is lit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mask3d_core.randomness import random_bits, stream
from mask3d_core.sources.rooms.config import RoomsConfig
from mask3d_core.sources.rooms.draws import Draws
from mask3d_core.sources.rooms.layout import Scene
from mask3d_core.sources.rooms.parts import STRUCTURE
from mask3d_core.sources.rooms.textures import SIZE, atlas, pattern_count, sample
from mask3d_core.sources.rooms.trace import TILE, Rays, Solids, first_hits, shadowed

_LAMP = ((0.1, 0.6), (-0.7, -0.1), (0.5, -0.6), (-0.3, 0.8), (0.8, 0.2), (-0.2, -0.7), (-0.8, 0.4), (0.3, 0.0),
         (-0.5, -0.5), (0.6, 0.7), (0.0, -0.3), (0.9, -0.2), (-0.6, 0.1), (0.2, -0.9), (-0.1, 0.3), (0.4, 0.4))


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


def _dot(a: list[Tensor], b: list[Tensor]) -> Tensor:
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
    length = torch.sqrt(_dot(normal, normal)).clamp(min=1e-9)
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
    ray_length = torch.sqrt(_dot(direction, direction))
    slant = -_dot(world, direction) / ray_length
    return Surface(depth, slant, label, world, point, local, half, facing)


def _albedo(surface: Surface, material: tuple[Tensor, ...], opening_fit: Tensor, rays: Rays, focal: Tensor) -> list[Tensor]:
    """Linear colour of the surface from its material's three colours and pattern."""
    local, half = surface.local, surface.half
    fit = material[11] > 0.5
    is_x, is_z = surface.facing == 0, surface.facing == 2
    a, b = torch.where(is_x, local[1], local[0]), torch.where(is_z, local[1], local[2])
    half_a, half_b = torch.where(is_x, half[1], half[0]), torch.where(is_z, half[1], half[2])
    turned = material[12] > 0.5
    scale = material[10]
    phase = material[16]
    is_part = surface.label >= STRUCTURE
    stretch = fit & is_part
    u = torch.where(stretch, (a / half_a).clamp(-0.999, 0.999) * 0.5 + 0.5, torch.where(turned, b, a) / scale + phase)
    v = torch.where(stretch, 0.5 - (b / half_b).clamp(-0.999, 0.999) * 0.5, torch.where(turned, a, -b) / scale + phase)
    tile = torch.where(stretch, 2 * torch.minimum(half_a, half_b), scale)
    footprint = surface.depth / focal[:, None, None, None] * SIZE / tile / surface.slant.clamp(min=0.15)
    texels, _ = atlas(str(u.device))
    second, third = sample(texels, pattern_count(), material[9].to(torch.int64), u, v, footprint)
    colors = []
    for i in range(3):
        color = material[i] + (material[3 + i] - material[i]) * second
        colors.append(color + (material[6 + i] - color) * third)
    return colors


def _soften(shade: Tensor, surface_key: Tensor) -> Tensor:
    """Average light over 4x4 pixels of the same surface: the jitter pattern repeats every 4, so penumbras come out smooth."""
    for axis in (1, 2):
        total, weight = shade.clone(), torch.ones_like(shade)
        for step in (-2, -1, 1):
            moved = torch.roll(shade, -step, axis)
            same = (torch.roll(surface_key, -step, axis) == surface_key).to(shade.dtype)
            total, weight = total + moved * same, weight + same
        shade = total / weight
    return shade


def to_image(values: Tensor, rays: Rays) -> Tensor:
    """(f, t, TILE, TILE) to (f, rows * TILE, columns * TILE)."""
    frames = values.shape[0]
    return values.reshape(frames, rays.rows, rays.columns, TILE, TILE).transpose(2, 3).reshape(
        frames, rays.rows * TILE, rays.columns * TILE)


def light_up(scene: Scene, surface: Surface, rays: Rays, material: tuple[Tensor, ...], albedo: list[Tensor]) -> list[Tensor]:
    """Linear radiance, three images (f, h, w)."""
    solids = Solids.of(scene.parts)

    def wide(v: Tensor) -> Tensor:
        return v[:, None, None, None]

    def image(v: Tensor) -> Tensor:
        return to_image(v, rays)

    spots = torch.tensor(_LAMP, device=surface.depth.device).reshape(4, 4, 2).repeat(TILE // 4, TILE // 4, 1)
    jitter = [spots[..., 0], spots[..., 1], -0.3 * (spots[..., 0] + spots[..., 1])]
    lifted = [p + 0.004 * n for p, n in zip(surface.point, surface.normal)]
    key = surface.label * 3 + surface.facing
    key_image = image(key)
    to_eye = [wide(rays.origin[:, i]) - surface.point[i] for i in range(3)]
    eye_length = torch.sqrt(_dot(to_eye, to_eye))
    sky = 0.78 + 0.22 * surface.normal[2]
    corner = _corner_shade(scene, surface)
    total = [image(wide(scene.ambient[:, i]) * sky * corner) for i in range(3)]
    shine = [torch.zeros_like(total[0]) for _ in range(3)]
    gloss = image(material[13])
    for index in range(scene.lights.shape[1]):
        light = scene.lights[:, index]
        toward = [wide(light[:, i]) - surface.point[i] for i in range(3)]
        square = _dot(toward, toward)
        length = torch.sqrt(square)
        facing = _dot(toward, surface.normal) / length
        halfway = [t / length + e / eye_length for t, e in zip(toward, to_eye)]
        spark = _dot(halfway, surface.normal) / torch.sqrt(_dot(halfway, halfway)).clamp(min=1e-6)
        for _ in range(5):
            spark = spark.clamp(min=0)
            spark = spark * spark
        is_on = light[:, 3] > 0
        is_open = (facing > 0) & wide(is_on) & _passes_window(scene, surface, toward, light[:, 7])
        dark = shadowed(solids, lifted, light[:, :3], jitter, light[:, 6], is_open.any(-1).any(-1)) | ~is_open
        lit = _soften(image((~dark).to(torch.float32)), key_image)
        strength = image(facing.clamp(min=0) / (square + 0.3)) * lit
        glint = image(spark / (square + 0.3) * (facing > 0)) * lit * gloss * 1.5
        for i in range(3):
            total[i] = total[i] + strength * light[:, 3 + i, None, None]
            shine[i] = shine[i] + glint * light[:, 3 + i, None, None]
    emission = image(material[15])
    return [a * t + s + a * emission for a, t, s in zip(map(image, albedo), total, shine)]


def _corner_shade(scene: Scene, surface: Surface) -> Tensor:
    """Less ambient light where walls, floor and ceiling meet."""
    shade = torch.ones_like(surface.depth)
    for i in range(3):
        p, end = surface.point[i], scene.size[:, i, None, None, None]
        gap = torch.minimum(p, end - p).clamp(min=0)
        shade = shade * torch.where(surface.normal[i].abs() > 0.7, 1.0, 1 - 0.35 / (1 + 6 * gap))
    return shade


def _passes_window(scene: Scene, surface: Surface, toward: list[Tensor], through: Tensor) -> Tensor:
    """Whether the way to the sun leaves the room by its window; True for lamps inside."""
    frames = through.shape[0]
    wall = through.clamp(min=0).to(torch.int64)
    box = scene.openings[torch.arange(frames, device=wall.device), wall][:, :, None, None, None]
    zero = torch.zeros_like(scene.size[:, 0])
    plane = torch.stack([zero, scene.size[:, 0], scene.size[:, 1], zero], 1).gather(1, wall[:, None])[..., None, None]
    runs_x = (wall % 2 == 0)[:, None, None, None]
    step = torch.where(runs_x, toward[1], toward[0])
    share = (plane - torch.where(runs_x, surface.point[1], surface.point[0])) / step
    along = torch.where(runs_x, surface.point[0] + share * toward[0], surface.point[1] + share * toward[1])
    up = surface.point[2] + share * toward[2]
    low, high = torch.where(runs_x, box[:, 0], box[:, 1]), torch.where(runs_x, box[:, 3], box[:, 4])
    inside = (along > low) & (along < high) & (up > box[:, 2]) & (up < box[:, 5]) & (share > -0.02)
    return inside | (through < 0)[:, None, None, None]


def _blur(image: Tensor, soft: Tensor) -> Tensor:
    """A lens that is never quite sharp: each pixel shares ``soft`` of its light with its neighbours, both ways."""
    for axis in (1, 2):
        length = image.shape[axis]
        before = torch.cat([image.narrow(axis, 0, 1), image.narrow(axis, 0, length - 1)], axis)
        after = torch.cat([image.narrow(axis, 1, length - 1), image.narrow(axis, length - 1, 1)], axis)
        image = image + ((before + after) * 0.5 - image) * soft
    return image


def expose(radiance: list[Tensor], keys: Tensor, config: RoomsConfig) -> Tensor:
    """A camera's picture: exposure, white balance, vignetting, tone curve, noise; uint8 (f, h, w, 3)."""
    one = Draws(config.seed * 2 + config.is_held_out, keys, "exposure", 1)
    luminance = 0.3 * radiance[0] + 0.6 * radiance[1] + 0.1 * radiance[2]
    # Integers, so that the mean does not depend on how a sum is split.
    level = (luminance.clamp(0, 4) * 4096).to(torch.int64).sum((1, 2)).to(torch.float32)
    mean = level[:, None] / (4096 * luminance.shape[1] * luminance.shape[2]) + 0.01
    gain = one(0.22, 0.55) / mean
    warm, green = one(-0.12, 0.12), one(-0.03, 0.03)
    soft = one(0.0, 0.45)[..., None]
    gains = [gain * (1 + warm), gain * (1 + green), gain * (1 - warm)]
    height, width = luminance.shape[1:]
    y = (torch.arange(height, device=keys.device) - (height - 1) / 2) / width
    x = (torch.arange(width, device=keys.device) - (width - 1) / 2) / width
    fall = 1 - one(0.0, 0.5)[..., None] * (x * x + (y * y)[:, None])
    noise = one(0.002, 0.015)[..., None]
    pixel = torch.arange(height * width, device=keys.device).reshape(height, width)
    bits = random_bits(stream("rooms/noise"), keys[:, None, None], pixel)
    channels = []
    for i in range(3):
        value = _blur(radiance[i].clamp(max=8.0), soft) * gains[i][..., None] * fall
        value = torch.sqrt((value * (1 + 0.15 * value) / (1 + value * 0.75)).clamp(0, 1))
        grain = ((bits >> (20 * i)) & 1023) + ((bits >> (20 * i + 10)) & 1023)
        value = value + (grain.to(torch.float32) / 1023 - 1) * noise
        channels.append((value * 255 + 0.5).clamp(0, 255).to(torch.uint8))
    return torch.stack(channels, -1)
