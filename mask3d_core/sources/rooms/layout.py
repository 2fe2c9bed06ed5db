"""One batch of rooms: the shell with its openings, where furniture stands, and the lights. All tensors are (r, ...).

Furniture is placed slot by slot; each slot tries a handful of spots and takes the first that is free.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mask3d_core.sources.rooms import decoration, furniture, seating, shell
from mask3d_core.sources.rooms.config import RoomsConfig
from mask3d_core.sources.rooms.draws import Draws, first_true, take, turn_to_sincos
from mask3d_core.sources.rooms.materials import draw_materials
from mask3d_core.sources.rooms.parts import Parts, Place

TRIES = 10


@dataclass(frozen=True)
class Scene:
    """Rooms ready to be seen.

    ``size`` (r, 3); ``openings`` (r, 4, 6) boxes behind each wall, low corner then high corner, empty where low > high;
    ``shell_labels`` int64 (r, 14, 3) semantic, material, instance of floor, ceiling, four walls, side and back of four
    openings; ``parts`` of :meth:`Parts.packed`; ``materials`` (r, m, c); ``lights`` (r, 2, 10): position, colour,
    radius, whether it shines through the opening of wall 0..3 only (-1: everywhere), and the direction x, y that it
    shines in (0, 0: all round); ``ambient`` (r, 3);
    ``targets`` (r, n, 4) points worth looking at and whether they exist; ``desks`` (r, n, 6): x, y and
    height of a table top, half its size in its own axes, whether it exists.
    """

    size: Tensor
    openings: Tensor
    shell_labels: Tensor
    parts: dict[str, Tensor]
    materials: Tensor
    lights: Tensor
    ambient: Tensor
    targets: Tensor
    desks: Tensor


def build_rooms(room_ids: Tensor, config: RoomsConfig) -> Scene:
    """Build rooms.

    Args:
        room_ids: int64 (r,).
        config: seed, furniture level, pool.

    Returns:
        The scene; row i depends on ``room_ids[i]`` and the configuration alone.
    """
    device = room_ids.device
    pool = 1 if config.is_held_out else 0
    draw = Draws(config.seed * 2 + pool, room_ids, "shell", 1)
    width, depth = draw(2.8, 5.9), draw(2.8, 5.9)
    height = draw(2.3, 3.0)
    size = torch.cat([width, depth, height], 1)
    parts = Parts(len(room_ids), device)
    parts.materials(shell.MATERIALS - 1)
    parts.materials(1, "outside")
    openings, labels = shell.add_openings(parts, room_ids, size, config)
    taken = shell.free_doorways(openings, size)
    places = _furnish(parts, room_ids, size, taken, config)
    shell.add_pillars(parts, room_ids, size, config)
    if config.furniture >= 6:
        decoration.add_pictures(parts, room_ids, size, openings, config)
        decoration.add_curtains(parts, room_ids, size, openings, config)
        decoration.add_rugs(parts, room_ids, size, config)
    shell.add_baseboards(parts, Draws(config.seed * 2 + pool, room_ids, "baseboards", 1), size, openings)
    lights, ambient = shell.add_lights(parts, room_ids, size, openings, config)
    return Scene(size, openings, labels, parts.packed(), draw_materials(parts.material_kinds, room_ids, config),
                 lights, ambient, places.targets, places.desks)


@dataclass
class _Placed:
    targets: Tensor
    desks: Tensor


def find_place(draw: Draws, size: Tensor, half_x: Tensor, half_y: Tensor, taken: Tensor, against_wall: Tensor,
               wanted: Tensor) -> tuple[Place, Tensor, Tensor]:
    """Try spots for one piece per room.

    Args:
        draw: of ``TRIES`` slots.
        size: (r, 3) of the room; half_x, half_y: (r,) half footprint.
        taken: (r, k, 4) rectangles in the way.
        against_wall: bool (r,); wanted: bool (r,).

    Returns:
        The place (r, 1), whether it fits, bool (r, 1), and ``taken`` with its rectangle added.
    """
    hx, hy, width, depth = half_x[:, None], half_y[:, None], size[:, :1], size[:, 1:2]
    against = against_wall[:, None]
    wall = draw.choice(4)
    jitter = draw(-0.02, 0.02)
    turns = torch.where(against, wall / 4.0 + jitter * draw.chance(0.3), torch.where(
        draw.chance(0.5), wall / 4.0 + jitter, draw()))
    sine, cosine = turn_to_sincos(turns)
    extent_x, extent_y = (cosine * hx).abs() + (sine * hy).abs(), (sine * hx).abs() + (cosine * hy).abs()
    room_x, room_y = (width - 2 * extent_x).clamp(min=0), (depth - 2 * extent_y).clamp(min=0)
    gap = draw(0.0, 0.06) + 0.02
    x, y = extent_x + draw() * room_x, extent_y + draw() * room_y
    x = torch.where(against & (wall == 1), width - extent_x - gap, torch.where(against & (wall == 3), extent_x + gap, x))
    y = torch.where(against & (wall == 2), depth - extent_y - gap, torch.where(against & (wall == 0), extent_y + gap, y))
    box = torch.stack([x - extent_x, y - extent_y, x + extent_x, y + extent_y], -1)  # (r, TRIES, 4)
    hits = ((box[:, :, None, :2] < taken[:, None, :, 2:]) & (box[:, :, None, 2:] > taken[:, None, :, :2])).all(-1).any(-1)
    fits = ~hits & (2 * extent_x < width - 0.05) & (2 * extent_y < depth - 0.05)
    best = first_true(fits)
    ok = take(fits, best) & wanted
    chosen = box.gather(1, best[:, None, None].expand(-1, 1, 4))
    far = torch.tensor([99.0, 99.0, -99.0, -99.0], device=size.device)
    taken = torch.cat([taken, torch.where(ok[:, None, None], chosen, far)], 1)
    pick = [take(v, best)[:, None] for v in (x, y, sine, cosine)]
    return Place(pick[0], pick[1], torch.zeros_like(pick[0]), pick[2], pick[3]), ok[:, None], taken


def _furnish(parts: Parts, room_ids: Tensor, size: Tensor, taken: Tensor, config: RoomsConfig) -> _Placed:
    seed = config.seed * 2 + config.is_held_out
    slots = furniture.SLOTS
    draw = Draws(seed, room_ids, "slots", slots)
    family, half_x, half_y, against = furniture.choose_families(draw, size, config)
    places, fits = [], []
    for slot in range(slots):
        place, ok, taken = find_place(Draws(seed, room_ids, f"spot{slot}", TRIES), size, half_x[:, slot], half_y[:, slot],
                                      taken, against[:, slot], family[:, slot] >= 0)
        places.append(place)
        fits.append(ok)
    place = Place(*(torch.cat([getattr(p, name) for p in places], 1) for name in ("x", "y", "z", "sine", "cosine")))
    active = torch.cat(fits, 1)
    tops, exists = furniture.build_furniture(parts, room_ids, draw, place, family, active, half_x, half_y, config)
    desks = torch.stack([place.x, place.y, tops, half_x, half_y, exists.to(torch.float32)], -1)
    targets = torch.stack([place.x, place.y, tops * 0.8, active.to(torch.float32)], -1)

    if config.furniture >= 2:
        is_table = active & (family == furniture.FAMILIES.index("table"))
        taken = seating.add_chairs(parts, room_ids, size, taken, place, is_table, half_x, half_y, config)
    furniture.add_floor_things(parts, room_ids, size, taken, config, find_place)
    return _Placed(targets, desks)
