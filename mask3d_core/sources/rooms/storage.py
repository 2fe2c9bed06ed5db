"""Shelves with books, cabinets, wardrobes, and stands with a television; monitors and keyboards on desks."""

from __future__ import annotations

import torch
from torch import Tensor

from mask3d_core.sources.rooms.config import BOOKS, FURNITURE, OBJECTS, TV, RoomsConfig
from mask3d_core.sources.rooms.draws import Draws
from mask3d_core.sources.rooms.parts import Parts, Place

BOARDS = 6
BOOKS_PER_BOARD = 4


def add_shelves(parts: Parts, draw: Draws, room_ids: Tensor, place: Place, active: Tensor, half_x: Tensor, half_y: Tensor,
                instance: Tensor, config: RoomsConfig) -> Tensor:
    """Open shelves. Train: side panels and a back. Test: round posts, no back, boards of uneven length."""
    slots = place.x.shape[1]
    seed = config.seed * 2 + config.is_held_out
    body = parts.materials(slots)
    boards, height = draw.choice(4) + 2, draw(0.8, 2.15)
    labels = {"semantic": FURNITURE, "instance": instance}
    thick = draw(0.008, 0.018)
    if config.is_held_out:
        for side_x in (-1, 1):
            for side_y in (-1, 1):
                parts.add("cylinder", place, (side_x * half_x, side_y * half_y * 0.9, height / 2), (0.016, 0.016, height / 2),
                          material=body, active=active, **labels)
    else:
        for side in (-1, 1):
            parts.add("box", place, (side * half_x, 0, height / 2), (thick, half_y, height / 2), material=body, active=active, **labels)
        parts.add("box", place, (0, -half_y + 0.006, height / 2), (half_x, 0.006, height / 2), material=body,
                  active=active & draw.chance(0.7), **labels)

    level = torch.arange(BOARDS, device=height.device)
    step = (height - 0.04) / boards
    up = 0.04 + level * step[..., None]
    on_board = active[..., None] & (level <= boards[..., None])

    def flat(values: Tensor, *extra: int) -> Tensor:
        shape = (*values.shape[:2], BOARDS, *extra)
        return values.reshape(*values.shape, *(1,) * (len(shape) - values.ndim)).expand(shape).flatten(1)

    zero = torch.zeros_like(up)
    each = Draws(seed, room_ids, "boards", slots * BOARDS)
    shorter = each(0.7, 1.0) if config.is_held_out else 1.0
    parts.add("box", place.inner(zero, zero, up, zero), (0, 0, 0), (flat(half_x) * shorter, flat(half_y), flat(thick)),
              semantic=FURNITURE, material=flat(body.expand(active.shape)), instance=flat(instance.expand(active.shape)),
              active=on_board.flatten(1))

    count = slots * BOARDS * BOOKS_PER_BOARD
    book = Draws(seed, room_ids, "books", count)
    room = flat(half_x, BOOKS_PER_BOARD) * (0.95 / BOOKS_PER_BOARD)
    gap = flat(step, BOOKS_PER_BOARD) - 2 * flat(thick, BOOKS_PER_BOARD)
    column = torch.arange(BOOKS_PER_BOARD, device=height.device).repeat(slots * BOARDS)
    wide = room * book(0.35, 1.0)
    tall = torch.minimum(gap * 0.48, book(0.08, 0.16))
    deep = torch.minimum(flat(half_y, BOOKS_PER_BOARD) * 0.9, book(0.07, 0.13))
    full = flat(draw(0.3, 0.95), BOOKS_PER_BOARD)
    there = (on_board & (level < boards[..., None]))[..., None].expand(-1, -1, -1, BOOKS_PER_BOARD).flatten(1) & (book() < full)
    x = (2 * column + 1 - BOOKS_PER_BOARD) * room + (room - wide) * book(-1.0, 1.0)
    lift = flat(up.reshape(*up.shape), BOOKS_PER_BOARD) + flat(thick, BOOKS_PER_BOARD)
    shape = (*active.shape, BOARDS * BOOKS_PER_BOARD)
    y = book(-0.02, 0.03)
    spot = place.inner(x.reshape(shape), y.reshape(shape), lift.reshape(shape), torch.zeros(shape, device=height.device))
    is_books = there & book.chance(0.75)
    parts.add("box", spot, (0, 0, tall), (wide, deep, tall), semantic=BOOKS, material=parts.materials(count, "spines"),
              instance=parts.instances(count), active=is_books)
    other = parts.materials(count)
    things = {"semantic": OBJECTS, "material": other, "instance": parts.instances(count)}
    slim = torch.minimum(wide, deep) * 0.9
    round_ones = book.chance(0.5)
    parts.add("box", spot, (0, 0, tall * 0.6), (wide, slim, tall * 0.6), active=there & ~is_books & ~round_ones, **things)
    parts.add("cylinder", spot, (0, 0, tall * 0.7), (slim, slim, tall * 0.7), active=there & ~is_books & round_ones, **things)
    return height


def add_cabinets(parts: Parts, draw: Draws, place: Place, active: Tensor, half_x: Tensor, half_y: Tensor, instance: Tensor,
                 config: RoomsConfig, is_low: Tensor) -> Tensor:
    """Cabinets, chests and wardrobes. Train: doors side by side. Test: drawers one above the other, on round feet."""
    count = place.x.shape[1]
    body, front = parts.materials(count), parts.materials(count)
    front = torch.where(draw.chance(0.6), body, front)
    knob = parts.materials(count)
    labels = {"semantic": FURNITURE, "instance": instance, "active": active}
    height = torch.where(is_low, draw(0.32, 0.6), torch.where(draw.chance(0.25), draw(1.5, 2.1), draw(0.5, 1.15)))
    foot = draw(0.06, 0.14) if config.is_held_out else torch.zeros_like(height)
    tall = (height - foot) / 2
    parts.add("box", place, (0, 0, foot + tall), (half_x, half_y, tall), material=body, **labels)
    if config.is_held_out:
        for side_x in (-1, 1):
            for side_y in (-1, 1):
                parts.add("cylinder", place, (side_x * half_x * 0.85, side_y * half_y * 0.8, foot / 2), (0.02, 0.02, foot / 2),
                          material=knob, **labels)
        rows = draw.choice(3) + 2
        for k in range(4):
            z, high = foot + tall * (2 * k + 1) / rows, tall / rows - 0.008
            there = {**labels, "active": active & (k < rows)}
            parts.add("box", place, (0, half_y + 0.006, z), (half_x - 0.012, 0.009, high), material=front, **there)
            parts.add("cylinder", place, (0, half_y + 0.03, z), (0.008, 0.008, half_x * 0.3), material=knob, turns=0.25, tilt=0.25, **there)
        return height
    doors = draw.choice(3) + 1
    grip = draw.chance(0.5)
    for k in range(3):
        wide = half_x / doors
        x = -half_x + wide * (2 * k + 1)
        there = active & (k < doors)
        parts.add("box", place, (x, half_y + 0.006, foot + tall), (wide - 0.006, 0.009, tall - 0.012), material=front,
                  **{**labels, "active": there})
        parts.add("ellipsoid", place, (x + wide * 0.75, half_y + 0.025, foot + tall * 1.1), (0.014, 0.014, 0.014), material=knob,
                  **{**labels, "active": there & grip})
        parts.add("box", place, (x + wide * 0.8, half_y + 0.025, foot + tall * 1.1), (0.006, 0.01, 0.06), material=knob,
                  **{**labels, "active": there & ~grip})
    return height


def add_televisions(parts: Parts, draw: Draws, place: Place, active: Tensor, half_x: Tensor, top: Tensor) -> None:
    """A television on a low stand."""
    count = place.x.shape[1]
    wide = torch.minimum(half_x * 0.95, draw(0.3, 0.65))
    high = wide * draw(0.55, 0.64)
    _screen(parts, draw, place, active, (0, draw(-0.08, 0.02)), top, wide, high, draw(0.03, 0.09), parts.instances(count))


def _screen(parts: Parts, draw: Draws, place: Place, active: Tensor, at, top, wide, high, lift, instance) -> None:
    """A panel on a foot, its picture to the front."""
    count = place.x.shape[1]
    shell, picture = parts.materials(count, "screen"), parts.materials(count, "screen")
    labels = {"semantic": TV, "instance": instance, "active": active}
    lean, thick, rim = draw(-0.02, 0.005), draw(0.01, 0.03), draw(0.008, 0.025)
    x, y = at
    middle = top + lift + high
    parts.add("box", place, (x, y, middle), (wide, thick, high), material=shell, tilt=lean, **labels)
    parts.add("box", place, (x, y + thick, middle), (wide - rim, 0.003, high - rim), material=picture, tilt=lean, **labels)
    parts.add("box", place, (x, y - thick - 0.01, top + (lift + high) / 2), (0.03, 0.015, (lift + high) / 2), material=shell, **labels)
    parts.add("cylinder", place, (x, y, top + 0.008), (wide * 0.45, 0.09, 0.008), material=shell, **labels)


def add_desk_screens(parts: Parts, draw: Draws, place: Place, active: Tensor, half_x: Tensor, half_y: Tensor, top: Tensor) -> list[Tensor]:
    """Monitors with keyboard and mouse, or a laptop, on some tables.

    Returns:
        Local rectangles (r, n, 4) on the table top that other things must leave free.
    """
    count = place.x.shape[1]
    high_enough = active & (top > 0.6)
    kind = draw.weighted([0.35, 0.4, 0.25])
    monitor, laptop = high_enough & (kind == 1), high_enough & (kind == 2)
    wide, high = torch.minimum(half_x * 0.5, draw(0.2, 0.31)), draw(0.12, 0.2)
    x, y = draw(-0.4, 0.4) * half_x, -half_y * draw(0.3, 0.7)
    _screen(parts, draw, place, monitor, (x, y), top, wide, high, draw(0.06, 0.14), parts.instances(count))
    empty = torch.tensor([9.0, 9.0, -9.0, -9.0], device=top.device)

    def keep(box, there):
        return torch.where(there[..., None], torch.stack(torch.broadcast_tensors(*box), -1), empty)

    free = [keep((x - wide, y - 0.1, x + wide, y + 0.1), monitor)]
    key_x, key_y = x + draw(-0.1, 0.1), half_y * draw(0.15, 0.55)
    key_wide = torch.minimum(half_x * 0.45, draw(0.16, 0.23))
    keys = {"semantic": OBJECTS, "active": monitor & draw.chance(0.85)}
    parts.add("box", place, (key_x, key_y, top + 0.012), (key_wide, 0.07, 0.01), material=parts.materials(count, "keys"),
              instance=parts.instances(count), turns=draw(-0.04, 0.04), **keys)
    parts.add("ellipsoid", place, (key_x + key_wide + 0.09, key_y, top + 0.012), (0.03, 0.055, 0.02), material=parts.materials(count),
              instance=parts.instances(count), **keys)
    free.append(keep((key_x - key_wide, key_y - 0.07, key_x + key_wide + 0.13, key_y + 0.07), monitor))

    shell, picture = parts.materials(count), parts.materials(count, "screen")
    base_wide, base_deep, lean = draw(0.15, 0.19), draw(0.1, 0.13), draw(0.02, 0.1)
    labels = {"semantic": OBJECTS, "instance": parts.instances(count), "active": laptop}
    at_x, at_y = draw(-0.3, 0.3) * half_x, draw(-0.2, 0.3) * half_y
    base_deep = torch.minimum(base_deep, half_y * 0.5)
    parts.add("box", place, (at_x, at_y, top + 0.009), (base_wide, base_deep, 0.008), material=shell, **labels)
    parts.add("box", place, (at_x, at_y + 0.02, top + 0.018), (base_wide * 0.9, base_deep * 0.55, 0.001),
              material=parts.materials(count, "keys"), **labels)
    back = at_y - base_deep - base_deep * lean * 6
    parts.add("box", place, (at_x, back, top + 0.015 + base_deep * 0.9), (base_wide, 0.004, base_deep), material=shell, tilt=lean, **labels)
    parts.add("box", place, (at_x, back + 0.004, top + 0.016 + base_deep * 0.9), (base_wide * 0.94, 0.002, base_deep * 0.9), material=picture,
              tilt=lean, **labels)
    free.append(keep((at_x - base_wide, at_y - 2 * base_deep, at_x + base_wide, at_y + base_deep), laptop))
    return free
