"""Chairs, sofas and beds."""

from __future__ import annotations

import torch
from torch import Tensor

from mask3d_core.sources.rooms.config import BED, CHAIR, OBJECTS, SOFA, RoomsConfig
from mask3d_core.sources.rooms.draws import Draws, turn_to_sincos
from mask3d_core.sources.rooms.parts import Parts, Place

CHAIRS_PER_TABLE = 3
_SIDES = ((0.0, 1.0), (1.0, 0.0), (0.0, -1.0))  # front, right and back of a table


def add_chairs(parts: Parts, room_ids: Tensor, size: Tensor, taken: Tensor, tables: Place, is_table: Tensor, half_x: Tensor,
               half_y: Tensor, config: RoomsConfig) -> Tensor:
    """Chairs around the first two slots, where those hold tables; some of them turned away or pushed in.

    Args:
        taken: (r, 4 + slots, 4) rectangles in the way: doors, then slots.
        tables: (r, slots); is_table: bool (r, slots); half_x, half_y: (r, slots).

    Returns:
        ``taken`` with the chairs.
    """
    seed = config.seed * 2 + config.is_held_out
    count = 2 * CHAIRS_PER_TABLE
    draw = Draws(seed, room_ids, "chairs", count)
    side = torch.tensor(_SIDES, device=size.device).repeat(2, 1)
    table = torch.arange(count, device=size.device) // CHAIRS_PER_TABLE

    def of(values: Tensor) -> Tensor:
        return values[:, table]

    away = draw(0.02, 0.42)
    x = side[:, 0] * (of(half_x) + away) + (1 - side[:, 0]) * draw(-0.6, 0.6) * of(half_x)
    y = side[:, 1] * (of(half_y) + away) + (1 - side[:, 1].abs()) * draw(-0.4, 0.4) * of(half_y)
    toward = torch.where(side[:, 0] > 0, 0.25, torch.where(side[:, 1] > 0, 0.5, 0.0))  # the seat's front faces the table
    turns = toward + torch.where(draw.chance(0.25), draw(-0.5, 0.5), draw(-0.06, 0.06))
    base = Place(*(of(getattr(tables, n)) for n in ("x", "y", "z", "sine", "cosine")))
    spot = base.inner(x[..., None], y[..., None], torch.zeros_like(x)[..., None], turns[..., None])
    wide, deep = draw(0.19, 0.26), draw(0.19, 0.25)
    wanted = of(is_table) & draw.chance(0.62)
    box = torch.stack([spot.x - 0.27, spot.y - 0.27, spot.x + 0.27, spot.y + 0.27], -1)
    inside = ((box[..., :2] > 0.02) & (box[..., 2:] < size[:, None, :2] - 0.02)).all(-1)
    active = []
    for k in range(count):
        hits = ((box[:, k:k + 1, :2] < taken[..., 2:]) & (box[:, k:k + 1, 2:] > taken[..., :2])).all(-1)
        hits[:, 4 + k // CHAIRS_PER_TABLE] = False  # a chair may stand under its own table
        ok = inside[:, k] & wanted[:, k] & ~hits.any(-1)
        active.append(ok)
        far = torch.tensor([99.0, 99.0, -99.0, -99.0], device=size.device)
        taken = torch.cat([taken, torch.where(ok[:, None], box[:, k], far)[:, None]], 1)
    build_chairs(parts, draw, spot, torch.stack(active, 1), wide, deep, config)
    return taken


def build_chairs(parts: Parts, draw: Draws, place: Place, active: Tensor, wide: Tensor, deep: Tensor, config: RoomsConfig) -> None:
    """Train: four legs with a slab or slats for a back, office chairs on a star, stools. Test: sledges, tubs on a drum."""
    count = place.x.shape[1]
    seat_material, leg_material = parts.materials(count), parts.materials(count)
    leg_material = torch.where(draw.chance(0.5), seat_material, leg_material)
    labels = {"semantic": CHAIR, "instance": parts.instances(count)}
    seat, thick, rise = draw(0.38, 0.52), draw(0.012, 0.05), draw(0.18, 0.34)
    style = draw.weighted([0.35, 0.25, 0.3, 0.1])
    lean = draw(0.0, 0.045)
    back_y = -deep + 0.01 - rise * 0.15
    parts.add("box", place, (0, 0, seat), (wide, deep, thick), material=seat_material, active=active, **labels)
    if config.is_held_out:
        _held_out_chairs(parts, draw, place, active, wide, deep, seat, rise, style, seat_material, leg_material, labels)
        return
    legs = active & (style != 2)
    leg = draw(0.012, 0.026)
    for side_x in (-1, 1):
        for side_y in (-1, 1):
            at = (side_x * (wide - leg), side_y * (deep - leg), (seat - thick) / 2)
            parts.add("box", place, at, (leg, leg, (seat - thick) / 2), material=leg_material, active=legs & (style != 1), **labels)
            parts.add("cylinder", place, at, (leg, leg, (seat - thick) / 2), material=leg_material, active=legs & (style == 1), **labels)
    slab = active & ((style == 0) | (style == 2))
    parts.add("box", place, (0, back_y, seat + rise + thick + 0.06), (wide * draw(0.8, 1.0), draw(0.012, 0.035), rise),
              material=seat_material, active=slab, tilt=lean, **labels)
    slats = active & (style == 1)
    for side_x in (-1, 1):
        parts.add("box", place, (side_x * (wide - leg), back_y + 0.02, seat + rise), (leg, leg, rise), material=leg_material,
                  active=slab | slats, tilt=lean, **labels)
    for level in (0.35, 0.62, 0.9):
        parts.add("box", place, (0, back_y + 0.03 - 0.1 * level * rise, seat + 2 * rise * level), (wide - leg, 0.008, 0.03),
                  material=seat_material, active=slats, tilt=lean, **labels)
    office = active & (style == 2)
    parts.add("cylinder", place, (0, 0, seat / 2 + 0.03), (0.025, 0.025, seat / 2 - 0.03), material=leg_material, active=office, **labels)
    for turn in (0.0, 1 / 6, 1 / 3):
        parts.add("box", place, (0, 0, 0.035), (0.27, 0.022, 0.03), material=leg_material, active=office, turns=turn, **labels)
    arms = office & draw.chance(0.6)
    for side_x in (-1, 1):
        parts.add("box", place, (side_x * (wide + 0.025), -0.02, seat + 0.21), (0.025, deep * 0.6, 0.014), material=leg_material,
                  active=arms, **labels)
        parts.add("box", place, (side_x * (wide + 0.025), -0.02, seat + 0.1), (0.012, 0.02, 0.1), material=leg_material,
                  active=arms, **labels)


def _held_out_chairs(parts, draw, place, active, wide, deep, seat, rise, style, seat_material, leg_material, labels):
    tub, sledge = active & (style % 2 == 0), active & (style % 2 == 1)
    parts.add("cylinder", place, (0, 0, seat / 2), (wide * 0.95, deep * 0.95, seat / 2), material=seat_material, active=tub, **labels)
    parts.add("ellipsoid", place, (0, -deep * 0.75, seat + rise * 0.75), (wide, 0.06, rise), material=seat_material, active=tub, **labels)
    for side_x in (-1, 1):
        x = side_x * (wide - 0.012)
        parts.add("box", place, (x, 0, 0.012), (0.012, deep, 0.012), material=leg_material, active=sledge, **labels)
        parts.add("box", place, (x, deep * 0.95, seat / 2), (0.012, 0.012, seat / 2), material=leg_material, active=sledge, **labels)
        parts.add("box", place, (x, -deep * 0.95, (seat + rise) / 2 + 0.1), (0.012, 0.012, (seat + rise) / 2 + 0.1),
                  material=leg_material, active=sledge, **labels)
    parts.add("cylinder", place, (0, -deep, seat + rise), (rise * 0.5, wide, 0.015), material=seat_material, active=sledge, turns=0.25,
              tilt=draw(0.2, 0.25), **labels)


def add_sofas(parts: Parts, draw: Draws, place: Place, active: Tensor, half_x: Tensor, half_y: Tensor, instance: Tensor,
              config: RoomsConfig) -> Tensor:
    """Sofas and armchairs. Train: block arms. Test: rolled arms, or none and a long bolster."""
    count = place.x.shape[1]
    cover, other = parts.materials(count), parts.materials(count)
    cushion = torch.where(draw.chance(0.7), cover, other)
    labels = {"semantic": SOFA, "instance": instance, "active": active}
    base, seat, back = draw(0.12, 0.2), draw(0.36, 0.48), draw(0.62, 0.95)
    arm, deep = draw(0.06, 0.12), draw(0.08, 0.13)
    parts.add("box", place, (0, 0, (base + 0.05) / 1), (half_x, half_y, base), material=cover, **labels)
    parts.add("box", place, (0, -half_y + deep, back / 2), (half_x, deep, back / 2), material=cover, **labels)
    arm_top = seat + draw(0.08, 0.22)
    if config.is_held_out:
        rolled = active & draw.chance(0.6)
        for side in (-1, 1):
            parts.add("cylinder", place, (side * (half_x - arm), 0, arm_top), (arm * 1.1, arm * 1.1, half_y), material=cover,
                      **{**labels, "active": rolled}, tilt=0.25)
            parts.add("box", place, (side * (half_x - arm), 0, arm_top / 2), (arm, half_y, arm_top / 2), material=cover,
                      **{**labels, "active": rolled})
        parts.add("cylinder", place, (0, -half_y + 2 * deep + 0.1, seat + 0.12), (0.11, 0.11, half_x * 0.85), material=other,
                  **{**labels, "active": active & ~rolled}, turns=0.25, tilt=0.25)
    else:
        for side in (-1, 1):
            parts.add("box", place, (side * (half_x - arm), 0.01, arm_top / 2), (arm, half_y, arm_top / 2), material=cover,
                      **{**labels, "active": active & draw.chance(0.9)})
    inner = half_x - 2 * arm
    thirds = half_x > 0.85
    wide = torch.where(thirds, inner / 3, inner / 2)
    puff = draw(0.05, 0.09)
    for k in range(3):
        there = active & (thirds if k == 2 else active)
        x = -inner + wide * (2 * k + 1)
        parts.add("box", place, (x, deep, seat - puff), (wide * 0.985, half_y - deep - 0.01, puff), material=cushion,
                  **{**labels, "active": there})
        parts.add("box", place, (x, -half_y + 2 * deep + 0.07, seat + 0.17), (wide * 0.97, 0.07, 0.19), material=cushion,
                  tilt=0.03, **{**labels, "active": there & (back > 0.72)})
    _pillows(parts, draw, place, active, inner * 0.75, -half_y + 2 * deep + 0.25, seat, 0.19)
    return seat


def add_beds(parts: Parts, draw: Draws, place: Place, active: Tensor, half_x: Tensor, half_y: Tensor, instance: Tensor,
             config: RoomsConfig) -> Tensor:
    """Beds with their head at the wall. Train: a frame and a headboard. Test: four posts, or a low drum of a mattress."""
    count = place.x.shape[1]
    frame, sheet, cover = parts.materials(count), parts.materials(count), parts.materials(count)
    labels = {"semantic": BED, "instance": instance, "active": active}
    low, top = draw(0.12, 0.25), draw(0.38, 0.65)
    parts.add("box", place, (0, 0, low / 2 + 0.03), (half_x, half_y, low / 2 + 0.03), material=frame, **labels)
    parts.add("box", place, (0, 0.01, (low + top) / 2 + 0.03), (half_x * 0.97, half_y * 0.97, (top - low) / 2), material=sheet, **labels)
    cut = draw(0.1, 0.5)
    parts.add("box", place, (0, half_y * (cut + 0.01), top - 0.01), (half_x * 1.01, half_y * (1 - cut), 0.06), material=cover,
              **{**labels, "active": active & draw.chance(0.85)})
    if config.is_held_out:
        posts = draw(0.4, 0.9)
        for side_x in (-1, 1):
            for side_y in (-1, 1):
                parts.add("cylinder", place, (side_x * half_x, side_y * half_y, posts), (0.03, 0.03, posts), material=frame, **labels)
    else:
        head = draw(0.35, 0.6)
        parts.add("box", place, (0, -half_y + 0.02, head), (half_x * 1.02, 0.03, head), material=frame,
                  **{**labels, "active": active & draw.chance(0.8)})
    _pillows(parts, draw, place, active, half_x * 0.5, -half_y + 0.3, top + 0.05, 0.26)
    return top + 0.05


def _pillows(parts: Parts, draw: Draws, place: Place, active: Tensor, x: Tensor, y: Tensor, top: Tensor, size: float) -> None:
    """Up to two cushions, lying or leaning side by side on a surface at height ``top``."""
    count = place.x.shape[1]
    cover = parts.materials(count)
    lean = draw(0.0, 0.2)
    sine, cosine = turn_to_sincos(lean)
    for side in (-1, 1):
        wide, high, thick = draw(0.7, 1.1) * size, draw(0.5, 0.8) * size, draw(0.06, 0.1)
        rise = torch.sqrt(high * high * sine * sine + thick * thick * cosine * cosine)  # half height of the leaning ellipsoid
        parts.add("ellipsoid", place, (side * x, y + draw(-0.03, 0.05), top + rise - 0.01), (wide, high, thick), semantic=OBJECTS,
                  material=cover, instance=parts.instances(count), active=active & draw.chance(0.65), turns=draw(-0.05, 0.05), tilt=lean)
