"""Pictures, curtains, rugs, lamps and plants."""

from __future__ import annotations

import torch
from torch import Tensor

from mask3d_core.sources.rooms.config import FLOOR, OBJECTS, PICTURE, WINDOW, RoomsConfig
from mask3d_core.sources.rooms.draws import Draws, turn_to_sincos
from mask3d_core.sources.rooms.parts import Parts, Place

PICTURES = 7
FOLDS = 5
LEAVES = 9


def add_pictures(parts: Parts, room_ids: Tensor, size: Tensor, openings: Tensor, config: RoomsConfig) -> None:
    """Framed pictures on the walls, clear of windows and doors. Train: flat frames. Test: round ones, or deep boxes."""
    draw = Draws(config.seed * 2 + config.is_held_out, room_ids, "pictures", PICTURES)
    wall = draw.choice(4)
    wide, high = draw(0.12, 0.6), draw(0.12, 0.45)
    along = torch.where(wall % 2 == 0, size[:, :1], size[:, 1:2])
    across = torch.where(wall % 2 == 0, size[:, 1:2], size[:, :1])
    at = wide + 0.1 + draw() * (along - 2 * wide - 0.2).clamp(min=0)
    up = draw(1.25, 1.75).minimum(size[:, 2:] - high - 0.1)
    face = torch.where((wall == 1) | (wall == 2), across, torch.zeros_like(across))
    x, y = torch.where(wall % 2 == 0, at, face), torch.where(wall % 2 == 0, face, at)
    sine, cosine = turn_to_sincos(wall / 4.0)
    place = Place(x, y, up, sine, cosine)

    axis = torch.where(wall % 2 == 0, 0, 1)
    box = openings.gather(1, wall[..., None].expand(-1, -1, 6))
    low, top = box.gather(-1, axis[..., None])[..., 0], box.gather(-1, axis[..., None] + 3)[..., 0]
    hits_hole = (at - wide < top + 0.12) & (at + wide > low - 0.12) & (up - high < box[..., 5] + 0.1) & (up + high > box[..., 2] - 0.1)
    active = draw.chance(0.6) & ~hits_hole & (2 * wide < along - 0.3)
    for k in range(1, PICTURES):  # later pictures give way to earlier ones
        same = (wall[:, :k] == wall[:, k:k + 1]) & ((at[:, :k] - at[:, k:k + 1]).abs() < wide[:, :k] + wide[:, k:k + 1] + 0.03)
        active[:, k] &= ~(same & active[:, :k]).any(1)
    frame, canvas = parts.materials(PICTURES), parts.materials(PICTURES, "print")
    labels = {"semantic": PICTURE, "instance": parts.instances(PICTURES)}
    rim, thick = draw(0.012, 0.05), draw(0.006, 0.02)
    if config.is_held_out:
        is_round = draw.chance(0.5)
        parts.add("cylinder", place, (0, thick, 0), (wide, high, thick), material=frame, active=active & is_round, tilt=0.25, **labels)
        parts.add("cylinder", place, (0, thick, 0), (wide - rim, high - rim, thick + 0.003), material=canvas, active=active & is_round,
                  tilt=0.25, **labels)
        parts.add("box", place, (0, 2 * thick, 0), (wide, 2 * thick, high), material=canvas, active=active & ~is_round, **labels)
        return
    parts.add("box", place, (0, thick, 0), (wide, thick, high), material=frame, active=active, **labels)
    parts.add("box", place, (0, thick, 0), (wide - rim, thick + 0.003, high - rim), material=canvas, active=active, **labels)


def add_curtains(parts: Parts, room_ids: Tensor, size: Tensor, openings: Tensor, config: RoomsConfig) -> None:
    """Curtains in soft folds at both sides of some windows."""
    draw = Draws(config.seed * 2 + config.is_held_out, room_ids, "curtains", 4)
    is_window = (openings[..., 5] > 0) & (openings[..., 2] > 0)
    active = is_window & draw.chance(0.55)
    wall = torch.arange(4, device=size.device)
    low, high = openings[..., :3], openings[..., 3:]
    middle = (low + high) / 2
    half = torch.where(wall % 2 == 0, (high - low)[..., 0], (high - low)[..., 1]) / 2
    face = torch.stack([torch.zeros_like(size[:, 0]), size[:, 0], size[:, 1], torch.zeros_like(size[:, 0])], 1)
    x, y = torch.where(wall % 2 == 0, middle[..., 0], face), torch.where(wall % 2 == 0, face, middle[..., 1])
    sine, cosine = turn_to_sincos((wall / 4.0).expand_as(half))
    place = Place(x, y, torch.zeros_like(x), sine, cosine)
    top = torch.minimum(high[..., 2] + 0.15, size[:, 2:] - 0.02)
    bottom = torch.where(draw.chance(0.6), 0.03, torch.where(is_window, low[..., 2] - 0.1, 0.03)).clamp(min=0.03)
    tall = (top - bottom) / 2
    wide = half * draw(0.25, 0.6)
    cloth, rod = parts.materials(4), parts.materials(4)
    labels = {"semantic": WINDOW, "instance": parts.instances(4), "active": active}
    for side in (-1, 1):
        for fold in range(FOLDS):
            at = side * (half * 1.08 - wide * (fold + 0.5) / FOLDS)
            parts.add("cylinder", place, (at, 0.075 + 0.012 * (fold % 2), bottom + tall), (wide / FOLDS * 0.62, 0.03, tall), material=cloth,
                      **labels)
    parts.add("cylinder", place, (0, 0.075, top), (0.012, 0.012, half * 1.2), material=rod, turns=0.25, tilt=0.25, **labels)


def add_rugs(parts: Parts, room_ids: Tensor, size: Tensor, config: RoomsConfig) -> None:
    """A flat rug; floor to all intents."""
    draw = Draws(config.seed * 2 + config.is_held_out, room_ids, "rugs", 1)
    x, y = draw(0.35, 0.65) * size[:, :1], draw(0.35, 0.65) * size[:, 1:2]
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    kind = "cylinder" if config.is_held_out else "box"
    parts.add(kind, Place(x, y, zero, zero, one), (0, 0, 0.003), (size[:, :1] * draw(0.15, 0.33), size[:, 1:2] * draw(0.15, 0.33), 0.004),
              semantic=FLOOR, material=parts.materials(1), instance=0, active=draw.chance(0.4))


def add_ceiling_lamp(parts: Parts, place: Place, height: Tensor, drop: Tensor, draw: Draws) -> None:
    """Something for the light to come from: a disc at the ceiling, or a hanging globe or bowl."""
    labels = {"semantic": OBJECTS, "instance": parts.instances(1)}
    glow, metal = parts.materials(1, "lamp"), parts.materials(1)
    wide = draw(0.1, 0.25)
    is_globe = draw.chance(0.5)
    size = torch.minimum(wide, drop * 0.45)
    parts.add("cylinder", place, (0, 0, height - 0.03), (wide, wide, 0.03), material=glow, active=~is_globe, **labels)
    parts.add("ellipsoid", place, (0, 0, height - drop + size * 0.6 + 0.03), (size, size, size * 0.6), material=glow, active=is_globe, **labels)
    parts.add("cylinder", place, (0, 0, height - drop / 2 + 0.06), (0.01, 0.01, drop / 2 - 0.05), material=metal, active=is_globe, **labels)


def add_floor_lamps(parts: Parts, draw: Draws, place: Place, active: Tensor) -> None:
    """A pole on a foot with a shade. Train: an upright drum. Test: a globe."""
    count = place.x.shape[1]
    labels = {"semantic": OBJECTS, "instance": parts.instances(count), "active": active}
    metal, shade = parts.materials(count), parts.materials(count, "lamp")
    high, wide = draw(0.55, 0.85), draw(0.12, 0.22)
    parts.add("cylinder", place, (0, 0, 0.015), (0.14, 0.14, 0.015), material=metal, **labels)
    parts.add("cylinder", place, (0, 0, high), (0.014, 0.014, high), material=metal, **labels)
    parts.add("cylinder", place, (0, 0, 2 * high), (wide, wide, draw(0.1, 0.18)), material=shade, **labels)


def add_plants(parts: Parts, draw: Draws, place: Place, active: Tensor, scale: Tensor) -> None:
    """A pot and a tuft of leaves."""
    count = place.x.shape[1]
    labels = {"semantic": OBJECTS, "instance": parts.instances(count), "active": active}
    pot, leaf = parts.materials(count), parts.materials(count)
    tall = scale * draw(0.8, 1.3)
    parts.add("cylinder", place, (0, 0, tall * 0.5), (scale * 0.62, scale * 0.62, tall * 0.5), material=pot, **labels)
    for k in range(LEAVES):
        out, turn = draw(0.05, 0.19), k * 0.382 + draw(0.0, 0.1)
        length = scale * draw(1.1, 2.2)
        sine, cosine = turn_to_sincos(turn)
        lean_sine, lean_cosine = turn_to_sincos(out)
        reach = length * lean_sine
        parts.add("ellipsoid", place, (sine * reach, -cosine * reach, tall + length * lean_cosine), (scale * 0.25, scale * 0.06, length),
                  material=leaf, turns=turn, tilt=out, **labels)
