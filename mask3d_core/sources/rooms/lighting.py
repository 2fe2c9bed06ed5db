"""Colour of a surface, and the light that falls on it."""

from __future__ import annotations

import torch
from torch import Tensor

from mask3d_core.sources.rooms.layout import Scene
from mask3d_core.sources.rooms.parts import STRUCTURE
from mask3d_core.sources.rooms.solids import Solids
from mask3d_core.sources.rooms.surface import Surface, dot, to_image
from mask3d_core.sources.rooms.textures import SIZE, atlas, pattern_count, sample
from mask3d_core.sources.rooms.trace import TILE, Rays, shadowed

# Where on a lamp of radius 1 each pixel of a 4 x 4 block looks.
_LAMP = ((0.1, 0.6), (-0.7, -0.1), (0.5, -0.6), (-0.3, 0.8), (0.8, 0.2), (-0.2, -0.7), (-0.8, 0.4), (0.3, 0.0),
         (-0.5, -0.5), (0.6, 0.7), (0.0, -0.3), (0.9, -0.2), (-0.6, 0.1), (0.2, -0.9), (-0.1, 0.3), (0.4, 0.4))




def surface_color(surface: Surface, material: list[Tensor], focal: Tensor) -> list[Tensor]:
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


def light_up(scene: Scene, surface: Surface, rays: Rays, material: list[Tensor], albedo: list[Tensor]) -> list[Tensor]:
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
    eye_length = torch.sqrt(dot(to_eye, to_eye))
    sky = 0.78 + 0.22 * surface.normal[2]
    corner = _corner_shade(scene, surface)
    total = [image(wide(scene.ambient[:, i]) * sky * corner) for i in range(3)]
    shine = [torch.zeros_like(total[0]) for _ in range(3)]
    gloss = image(material[13])
    for index in range(scene.lights.shape[1]):
        light = scene.lights[:, index]
        toward = [wide(light[:, i]) - surface.point[i] for i in range(3)]
        square = dot(toward, toward)
        length = torch.sqrt(square)
        facing = dot(toward, surface.normal) / length
        beam = -(toward[0] * wide(light[:, 8]) + toward[1] * wide(light[:, 9])) / length
        beam = torch.maximum(beam, wide((light[:, 8] == 0) & (light[:, 9] == 0)).to(beam.dtype))
        halfway = [t / length + e / eye_length for t, e in zip(toward, to_eye)]
        spark = dot(halfway, surface.normal) / torch.sqrt(dot(halfway, halfway)).clamp(min=1e-6)
        for _ in range(5):
            spark = spark.clamp(min=0)
            spark = spark * spark
        is_on = light[:, 3] > 0
        is_open = (facing > 0) & (beam > 0) & wide(is_on) & _passes_window(scene, surface, toward, light[:, 7])
        dark = shadowed(solids, lifted, light[:, :3], jitter, light[:, 6], is_open.any(-1).any(-1)) | ~is_open
        lit = _soften(image((~dark).to(torch.float32)), key_image)
        strength = image(facing.clamp(min=0) / (square + 0.3) * beam) * lit
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
