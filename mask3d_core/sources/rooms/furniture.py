"""Families of furniture. Each is a handful of solids whose sizes and styles are drawn; test rooms draw other styles.

A piece stands in a local frame: x to its side, y to its front (its back at -y), z up.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mask3d_core.sources.rooms import clutter, decoration, seating, storage
from mask3d_core.sources.rooms.config import OBJECTS, TABLE, RoomsConfig
from mask3d_core.sources.rooms.draws import Draws
from mask3d_core.sources.rooms.parts import Parts, Place

SLOTS = 9
FAMILIES = ("box", "table", "shelf", "cabinet", "sofa", "bed", "stand")
_LEVEL = (0, 1, 3, 3, 4, 4, 5)  # the furniture level at which each family joins


def choose_families(draw: Draws, size: Tensor, config: RoomsConfig) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What stands in each slot, and how large it is.

    Returns:
        The family (r, SLOTS), -1 for none; half sizes along x and y, metres; whether it stands against a wall.
    """
    device = size.device
    slot = torch.arange(SLOTS, device=device)
    mixed = draw.weighted([0.10, 0.04, 0.20, 0.18, 0.21, 0.15, 0.12])
    family = torch.where(slot == 0, 1, torch.where((slot == 1) & draw.chance(0.55), 1, mixed))
    family = torch.where((slot >= 7) & draw.chance(0.6), torch.where(draw.chance(0.6), 0, 1), family)
    level = torch.tensor(_LEVEL, device=device)[family]
    family = torch.where(level > config.furniture, 0, family)
    empty = (slot >= 2) & draw.chance(0.25)

    low = torch.tensor([[0.15, 0.15], [0.45, 0.28], [0.3, 0.13], [0.25, 0.18], [0.6, 0.35], [0.45, 0.9], [0.45, 0.18]], device=device)
    high = torch.tensor([[0.5, 0.4], [0.95, 0.5], [0.75, 0.22], [0.8, 0.32], [1.15, 0.5], [0.95, 1.08], [0.9, 0.28]], device=device)
    low, high = low[family], high[family]
    half_x = low[..., 0] + draw() * (high[..., 0] - low[..., 0])
    half_y = low[..., 1] + draw() * (high[..., 1] - low[..., 1])
    against = torch.where(slot < 2, draw.chance(0.55), (slot < 7) | (family > 1))
    return torch.where(empty, -1, family), half_x, half_y, against


def build_furniture(parts: Parts, room_ids: Tensor, draw: Draws, place: Place, family: Tensor, active: Tensor, half_x: Tensor,
                    half_y: Tensor, config: RoomsConfig) -> tuple[Tensor, Tensor]:
    """Build what stands in the slots, and what lies on it.

    Returns:
        Height of the surface of each piece (r, SLOTS), metres, and whether one would look at what lies on it.
    """
    instance = parts.instances(SLOTS)
    level, seed = config.furniture, config.seed * 2 + config.is_held_out

    def there(name: str) -> Tensor:
        return active & (family == FAMILIES.index(name))

    shape = (place, there("box"), half_x, half_y, instance)
    heights = {"box": add_boxes(parts, Draws(seed, room_ids, "crates", SLOTS), *shape)}
    shape = (half_x, half_y, instance, config)
    clear = torch.ones_like(half_x)  # how much of a top is there for things: less on round ones
    if level >= 1:
        heights["table"], clear = add_tables(parts, Draws(seed, room_ids, "tables", SLOTS), place, there("table"), *shape)
    if level >= 3:
        heights["shelf"] = storage.add_shelves(parts, Draws(seed, room_ids, "shelves", SLOTS), room_ids, place, there("shelf"), *shape)
        is_stand = there("stand")
        heights["cabinet"] = storage.add_cabinets(parts, Draws(seed, room_ids, "cabinets", SLOTS), place, there("cabinet") | is_stand,
                                                  *shape, is_stand)
        heights["stand"] = heights["cabinet"]
    if level >= 4:
        heights["sofa"] = seating.add_sofas(parts, Draws(seed, room_ids, "sofas", SLOTS), place, there("sofa"), *shape)
        heights["bed"] = seating.add_beds(parts, Draws(seed, room_ids, "beds", SLOTS), place, there("bed"), *shape)
    tops = torch.zeros_like(half_x)
    for name, height in heights.items():
        tops = torch.where(family == FAMILIES.index(name), height, tops)

    keep_free: list[Tensor] = []
    if level >= 5:
        storage.add_televisions(parts, Draws(seed, room_ids, "televisions", SLOTS), place, there("stand"), half_x, tops)
        first = slice(0, 2)
        keep_free = storage.add_desk_screens(parts, Draws(seed, room_ids, "screens", 2), _pick(place, first), there("table")[:, first],
                                             half_x[:, first], half_y[:, first], tops[:, first])
    holds_things = active & ((family <= 1) | ((family == 3) & (tops < 1.3)))
    for slots, columns, rows, free in ((slice(0, 2), 4, 3, keep_free), (slice(2, SLOTS), 2, 1, [])):
        spot = _pick(place, slots)
        top = Place(spot.x, spot.y, tops[:, slots], spot.sine, spot.cosine)
        things = Draws(seed, room_ids, f"things{columns}", top.x.shape[1] * rows * columns)
        clutter.scatter_things(parts, things, top, (half_x * clear)[:, slots], (half_y * clear)[:, slots], columns, rows, draw(0.3, 1.0)[:, slots],
                               holds_things[:, slots], free)
    has_desk = there("table") | (there("box") if level < 1 else torch.zeros_like(active)) | (there("cabinet") & (tops < 1.0))
    return tops, has_desk


def _pick(place: Place, slots: slice) -> Place:
    return Place(*(getattr(place, name)[:, slots] for name in ("x", "y", "z", "sine", "cosine")))


def add_boxes(parts: Parts, draw: Draws, place: Place, active: Tensor, half_x: Tensor, half_y: Tensor, instance: Tensor) -> Tensor:
    """Plain crates and plinths."""
    tall = draw(0.08, 0.55)
    parts.add("box", place, (0, 0, tall), (half_x, half_y, tall), semantic=OBJECTS, material=parts.materials(SLOTS),
              instance=instance, active=active)
    return 2 * tall


def add_tables(parts: Parts, draw: Draws, place: Place, active: Tensor, half_x: Tensor, half_y: Tensor, instance: Tensor,
               config: RoomsConfig) -> tuple[Tensor, Tensor]:
    """Desks, dining and coffee tables. Train: four posts, or side panels. Test: one or two pedestals, some tops round.

    Returns:
        Height (r, n), metres; the share of the half sizes in which things can stand.
    """
    height = torch.where(draw.chance(0.2), draw(0.38, 0.55), draw(0.66, 0.82))
    thick = draw(0.008, 0.03)
    top_material, leg_material = parts.materials(SLOTS), parts.materials(SLOTS)
    leg_material = torch.where(draw.chance(0.5), top_material, leg_material)
    labels = {"semantic": TABLE, "instance": instance}
    under = (height - 2 * thick) / 2
    style = draw.choice(4)
    if config.is_held_out:
        is_round = active & (style == 0)
        parts.add("cylinder", place, (0, 0, height - thick), (half_x, half_y, thick), material=top_material, active=is_round, **labels)
        parts.add("box", place, (0, 0, height - thick), (half_x, half_y, thick), material=top_material, active=active & ~is_round, **labels)
        wide = draw(0.03, 0.07)
        for side in (-1, 1):
            shift = torch.where(style < 2, 0.0, side * half_x * 0.6)
            parts.add("cylinder", place, (shift, 0, under), (wide, wide, under), material=leg_material, active=active, **labels)
            parts.add("box", place, (shift, 0, 0.02), (wide * 1.2, half_y * 0.7, 0.02), material=leg_material, active=active, **labels)
        return height, torch.where(is_round, 0.7, 1.0)
    parts.add("box", place, (0, 0, height - thick), (half_x, half_y, thick), material=top_material, active=active, **labels)
    leg, inset = draw(0.018, 0.045), draw(0.0, 0.08)
    has_posts, has_round = active & (style <= 1), active & (style == 2)
    for side_x in (-1, 1):
        for side_y in (-1, 1):
            at = (side_x * (half_x - leg - inset), side_y * (half_y - leg - inset * 0.5), under)
            parts.add("box", place, at, (leg, leg, under), material=leg_material, active=has_posts, **labels)
            parts.add("cylinder", place, at, (leg, leg, under), material=leg_material, active=has_round, **labels)
        parts.add("box", place, (side_x * (half_x - 0.02 - inset), 0, under), (0.018, half_y * 0.92, under), material=leg_material,
                  active=active & (style == 3), **labels)
    parts.add("box", place, (0, -half_y * 0.85, height - 2 * thick - 0.12), (half_x * 0.88, 0.01, 0.12), material=leg_material,
              active=active & draw.chance(0.35), **labels)
    drawers = torch.minimum(half_x * 0.4, draw(0.15, 0.22))
    parts.add("box", place, (half_x * 0.9 - drawers, 0, height - 2 * thick - under * 0.8), (drawers, half_y * 0.85, under * 0.8),
              material=leg_material, active=active & draw.chance(0.3) & (height > 0.6), **labels)
    return height, torch.ones_like(height)


def add_floor_things(parts: Parts, room_ids: Tensor, size: Tensor, taken: Tensor, config: RoomsConfig, find_place) -> Tensor:
    """Boxes, balls and piles on the floor."""
    seed = config.seed * 2 + config.is_held_out
    draw = Draws(seed, room_ids, "floor", 5)
    half = draw(0.08, 0.3)
    wanted = draw.chance(0.55)
    places, fits = [], []
    for slot in range(5):
        spot, ok, taken = find_place(Draws(seed, room_ids, f"floor{slot}", 10), size, half[:, slot], half[:, slot], taken,
                                     torch.zeros_like(wanted[:, slot]), wanted[:, slot])
        places.append(spot)
        fits.append(ok)
    spot = Place(*(torch.cat([getattr(p, name) for p in places], 1) for name in ("x", "y", "z", "sine", "cosine")))
    active = torch.cat(fits, 1)
    is_large = draw.chance(0.6)
    tall = draw(0.08, 0.4)
    parts.add("box", spot, (0, 0, tall), (half, half * draw(0.5, 1.0), tall), semantic=OBJECTS, material=parts.materials(5),
              instance=parts.instances(5), active=active & is_large)
    is_small = active & ~is_large
    if config.furniture >= 6:
        kind = draw.weighted([0.4, 0.35, 0.25])
        decoration.add_plants(parts, Draws(seed, room_ids, "plants", 5), spot, is_small & (kind == 1), half.clamp(max=0.2))
        decoration.add_floor_lamps(parts, Draws(seed, room_ids, "lamps", 5), spot, is_small & (kind == 2))
        is_small = is_small & (kind == 0)
    clutter.add_things(parts, Draws(seed, room_ids, "floor things", 5), spot, half, is_small)
    return taken
