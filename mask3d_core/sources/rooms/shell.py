"""The shell of a room: walls with windows, doors and doorways, pillars, skirting, and the light that falls in."""

from __future__ import annotations

import torch
from torch import Tensor

from mask3d_core.sources.rooms import decoration
from mask3d_core.sources.rooms.config import CEILING, FLOOR, WALL, WINDOW, RoomsConfig
from mask3d_core.sources.rooms.draws import Draws, first_true, turn_to_sincos
from mask3d_core.sources.rooms.parts import Parts, Place

MATERIALS = 8  # of the shell: floor, ceiling, wall, accent wall, frames, door, corridor, what the window shows


def add_openings(parts: Parts, room_ids: Tensor, size: Tensor, config: RoomsConfig) -> tuple[Tensor, Tensor]:
    """At most one window, door or doorway per wall; frames and bars are parts."""
    draw = Draws(config.seed * 2 + config.is_held_out, room_ids, "openings", 4)
    kind = draw.weighted([0.38, 0.36, 0.16, 0.10])  # nothing, window, closed door, doorway
    is_window, is_door, is_way = kind == 1, kind == 2, kind == 3
    along = size[:, [0, 1, 0, 1]]
    across = size[:, [1, 0, 1, 0]]
    height = size[:, 2:]
    span = torch.where(is_window, draw(0.7, 2.0), draw(0.75, 1.05)).minimum(along - 0.5)
    middle = span / 2 + 0.2 + draw() * (along - span - 0.4)
    bottom = torch.where(is_window, torch.where(draw.chance(0.25), draw(0.05, 0.3), draw(0.7, 1.1)), 0.0)
    top = torch.where(is_window, bottom + draw(0.8, 1.6), draw(1.95, 2.15)).minimum(height - 0.1)
    back = torch.where(is_window, draw(0.06, 0.25), torch.where(is_door, draw(0.03, 0.12), draw(0.9, 2.2)))
    low, high = middle - span / 2, middle + span / 2
    walls = torch.arange(4, device=size.device)
    on_x = (walls % 2 == 0)  # walls 0 and 2 run along x
    is_far = (walls == 1) | (walls == 2)
    near_side, far_side = torch.where(is_far, across, -back), torch.where(is_far, across + back, torch.zeros_like(back))
    box = torch.stack([torch.where(on_x, low, near_side), torch.where(on_x, near_side, low), bottom,
                       torch.where(on_x, high, far_side), torch.where(on_x, far_side, high), top], -1)
    exists = kind > 0
    empty = torch.tensor([9.0, 9.0, 9.0, -9.0, -9.0, -9.0], device=size.device)
    box = torch.where(exists[..., None], box, empty)

    sine, cosine = turn_to_sincos((walls / 4.0).expand(len(room_ids), 4))  # local y points into the room
    center = (box[..., :3] + box[..., 3:]) / 2
    place = Place(center[..., 0], center[..., 1], torch.zeros_like(span), sine, cosine)
    _add_frames(parts, draw, place, span, bottom, top, back, exists, is_window)

    ids = parts.instances(4)
    rows = len(room_ids)
    accent = Draws(config.seed, room_ids, "accent", 4).chance(0.15)
    wall = torch.where(accent, 3, 2)
    side = torch.where(is_way, 6, wall)
    back_material = torch.where(is_window, 7, torch.where(is_door, 5, 6))
    back_class = torch.where(is_window, WINDOW, WALL)
    side_class = torch.full_like(back_class, WALL)
    zero = torch.zeros_like(wall)
    opening = torch.stack([torch.stack([side_class, side, zero], -1),
                           torch.stack([back_class, back_material, torch.where(is_way, 0, ids)], -1)], 2).flatten(1, 2)
    walls_label = torch.stack([torch.full_like(wall, WALL), wall, zero], -1)
    ground = torch.tensor([[FLOOR, 0, 0], [CEILING, 1, 0]], device=size.device).expand(rows, 2, 3)
    return box, torch.cat([ground, walls_label, opening], 1)


def _add_frames(parts, draw, place, span, bottom, top, back, exists, is_window):
    """A frame around each opening, bars in windows, a handle on doors."""
    material = torch.full((4,), 4, device=span.device)
    instance = parts.instances(4)
    semantic = torch.where(is_window, WINDOW, WALL)
    wide, thick = draw(0.03, 0.09), draw(0.01, 0.03)
    front, tall = back / 2 + thick / 2, top - bottom
    labels = {"semantic": semantic, "material": material, "instance": instance, "active": exists}
    for side in (-1, 1):
        parts.add("box", place, (side * (span + wide) / 2, front, bottom + tall / 2),
                  (wide / 2, thick, tall / 2 + wide), **labels)
    parts.add("box", place, (0, front, top + wide / 2), (span / 2, thick, wide / 2), **labels)
    labels["active"] = is_window
    parts.add("box", place, (0, front + 0.02, bottom - wide / 2), (span / 2 + wide, thick + draw(0.0, 0.08), wide / 3), **labels)
    inside = -back / 2 + 0.02
    labels["active"] = is_window & draw.chance(0.8)
    parts.add("box", place, (span * draw(-0.15, 0.15), inside, bottom + tall / 2), (0.025, 0.02, tall / 2), **labels)
    labels["active"] = is_window & draw.chance(0.5)
    parts.add("box", place, (0, inside, bottom + tall * draw(0.4, 0.7)), (span / 2, 0.02, 0.02), **labels)


def free_doorways(openings: Tensor, size: Tensor) -> Tensor:
    """Floor to keep free before doors: rectangles (r, 4, 4), low corner then high; inverted where there is none."""
    low, high = openings[..., :2] - 0.7, openings[..., 3:5] + 0.7
    is_door = (openings[..., 2] == 0) & (openings[..., 5] > 0)
    empty = torch.tensor([99.0, 99.0, -99.0, -99.0], device=size.device)
    return torch.where(is_door[..., None], torch.cat([low, high], -1), empty)


def add_pillars(parts: Parts, room_ids: Tensor, size: Tensor, config: RoomsConfig) -> None:
    """A corner taken out of the room (an L shape) or a pillar on a wall, from floor to ceiling, as wall."""
    draw = Draws(config.seed * 2 + config.is_held_out, room_ids, "pillars", 1)
    corner = draw.choice(4)
    reach = draw(0.15, 0.35)
    x = torch.where(corner % 2 == 0, 0.0, size[:, :1])
    y = torch.where(corner // 2 == 0, 0.0, size[:, 1:2])
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    parts.add("box", Place(x, y, zero, zero, one), (0, 0, size[:, 2:] / 2), (reach, draw(0.15, 0.35), size[:, 2:] / 2 + 0.01),
              semantic=WALL, material=2, instance=0, active=draw.chance(0.2))


def add_baseboards(parts: Parts, draw: Draws, size: Tensor, openings: Tensor) -> None:
    """A thin skirting along each wall that has no door in it."""
    tall, active = draw(0.05, 0.12), draw.chance(0.6)
    x, y = size[:, :1], size[:, 1:2]
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    is_free = ~((openings[..., 2] < 0.2) & (openings[..., 5] > 0))
    for wall, (cx, cy, hx, hy) in enumerate(((x / 2, zero, x / 2, 0.012), (x, y / 2, 0.012, y / 2),
                                             (x / 2, y, x / 2, 0.012), (zero, y / 2, 0.012, y / 2))):
        parts.add("box", Place(zero, zero, zero, zero, one), (cx, cy, tall / 2), (hx, hy, tall / 2),
                  semantic=WALL, material=4, instance=0, active=active & is_free[:, wall:wall + 1])


def add_lights(parts: Parts, room_ids: Tensor, size: Tensor, openings: Tensor, config: RoomsConfig) -> tuple[Tensor, Tensor]:
    """A ceiling lamp and, where a window is, daylight or sun through it; else a second lamp."""
    draw = Draws(config.seed * 2 + config.is_held_out, room_ids, "lights", 1)
    width, depth, height = size[:, :1], size[:, 1:2], size[:, 2:]
    x, y, drop = width * draw(0.25, 0.75), depth * draw(0.25, 0.75), draw(0.12, 0.5)
    warm = draw(0.0, 1.0)
    color = [1.0 + 0.05 * warm, 0.95 - 0.08 * warm, 0.85 - 0.35 * warm]
    power = torch.where(draw.chance(0.2), 0.0, draw(2.0, 6.0))
    everywhere = [torch.full_like(x, -1), torch.zeros_like(x), torch.zeros_like(x)]
    lamp = torch.cat([x, y, height - drop, *[c * power for c in color], draw(0.06, 0.25), *everywhere], 1)
    if config.furniture >= 6:
        zero = torch.zeros_like(x)
        decoration.add_ceiling_lamp(parts, Place(x, y, zero, zero, zero + 1), height, drop, draw)

    is_window = (openings[..., 5] > 0) & (openings[..., 2] > 0) & (openings[..., 3] > openings[..., 0])
    has_window = is_window.any(1, keepdim=True)
    wall = first_true(is_window)[:, None]
    box = openings.gather(1, wall[..., None].expand(-1, 1, 6))[:, 0]
    middle = (box[:, :3] + box[:, 3:]) / 2
    walls = torch.tensor([[0.0, -1.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], device=size.device)
    outward = walls[wall[:, 0]]
    is_sun = has_window & draw.chance(0.45)
    slant, rise = draw(-0.8, 0.8), draw(0.35, 1.1)
    sideways = torch.stack([-outward[:, 1], outward[:, 0]], 1) * slant
    far = torch.cat([outward + sideways, rise], 1) * 14.0
        # Just inside the window, past its curtains, which would otherwise shade the whole room.
    near = torch.cat([outward * -0.25, torch.zeros_like(rise)], 1)
    window_light = middle + torch.where(is_sun, far, near)
    corner_light = torch.cat([width * draw(0.1, 0.9), depth * draw(0.1, 0.9), height * draw(0.6, 0.9)], 1)
    position = torch.where(has_window, window_light, corner_light)
    power = torch.where(is_sun, draw(1200.0, 3000.0), torch.where(has_window, draw(3.0, 9.0), draw(0.0, 2.5)))
    cool = draw(0.0, 1.0)
    color = [c * power for c in (0.8 + 0.2 * cool, 0.9 + 0.05 * cool, 1.05 - 0.15 * cool)]
    radius = torch.where(is_sun, 0.25, torch.where(has_window, 0.22, 0.1))
    through = torch.where(is_sun, wall.to(torch.float32), -1.0)
    inward = torch.where(has_window & ~is_sun, -outward, 0.0)
    daylight = torch.cat([position, *color, radius, through, inward], 1)
    strength = draw(0.25, 0.6) + 0.25 * has_window
    tint = draw(0.0, 1.0)
    ambient = torch.cat([strength * (0.92 + 0.12 * tint), strength * 0.97, strength * (1.08 - 0.16 * tint)], 1)
    return torch.stack([lamp, daylight], 1), ambient
