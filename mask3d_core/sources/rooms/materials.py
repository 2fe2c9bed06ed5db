"""What things are made of: three colours, a pattern, gloss, and how well infrared comes back.

A material is drawn without knowing what it will cover. A few parts ask for a *kind* (a screen, a printed page, the
backs of books, the view from a window), because the kind is what they are. In a *plain* room (``RoomsConfig.plain``) the shell
is painted as most homes are, and most patterns are left out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mask3d_core.sources.rooms.config import RoomsConfig
from mask3d_core.sources.rooms.draws import Draws
from mask3d_core.sources.rooms.textures import atlas

COLUMNS = 17  # colours 0..8, pattern 9, scale 10, fit 11, turn 12, gloss 13, infrared 14, emission 15, phase 16


KINDS = ("any", "screen", "print", "spines", "keys", "outside", "lamp")


def _color(draw: Draws, held_out: bool) -> list[Tensor]:
    """A linear RGB colour: half of them pale or grey, the rest with a hue from the pool's own palette."""
    hue = draw()
    # Six bands of hue: train takes the first 2/3 of each, test the last third.
    hue = ((hue * 6).floor() + (0.68 + 0.32 * (hue * 6 % 1) if held_out else 0.66 * (hue * 6 % 1))) / 6
    mood = draw()
    value = torch.where(mood < 0.45, draw(0.55, 0.95), torch.where(mood < 0.62, draw(0.06, 0.35), draw(0.2, 0.85)))
    saturation = torch.where(mood < 0.45, draw(0.0, 0.22), torch.where(mood < 0.62, draw(0.0, 0.4), draw(0.25, 0.9)))
    # Browns and woods: hue near orange, middling saturation.
    is_wood = mood > 0.82
    hue = torch.where(is_wood, draw(0.09, 0.12) if held_out else draw(0.03, 0.085), hue)
    saturation = torch.where(is_wood, draw(0.3, 0.7), saturation)
    channels = []
    for offset in (0.0, 2 / 3, 1 / 3):
        ramp = (((hue + offset) * 6) % 6 - 3).abs().sub(1).clamp(0, 1)
        srgb = value * (1 - saturation * (1 - ramp))
        channels.append(srgb * srgb)
    return channels


PRINTS = {"train": 12, "test": 8}  # the last patterns of a pool are printed matter: covers, pages, photographs


def draw_materials(kinds: list[str], rooms: Tensor, config: RoomsConfig) -> Tensor:
    """Materials for a batch of rooms.

    Args:
        kinds: one per material id: "any", "screen", "print", "spines", "keys", "outside", "lamp".
        rooms: int64 (r,) room ids.
        config: seed and pool.

    Returns:
        float32 (r, len(kinds), COLUMNS).
    """
    draw = Draws(config.seed, rooms, f"material/{config.pool}", len(kinds))
    held_out = config.is_held_out
    base, second, third = _color(draw, held_out), _color(draw, held_out), _color(draw, held_out)
    closeness = torch.where(draw.chance(0.65), draw(0.1, 0.45), draw(0.5, 1.0))  # most patterns are tone on tone
    second = [b + (s - b) * closeness for b, s in zip(base, second)]
    scale, turn = draw(0.25, 1.3) * draw(0.6, 1.0), draw.choice(2).to(torch.float32)
    gloss = torch.where(draw.chance(0.3), draw(0.15, 0.6), draw(0.0, 0.12))
    emission = torch.zeros_like(scale)

    is_kind = {name: torch.tensor([kind == name for kind in kinds], device=rooms.device) for name in set(kinds) | set(KINDS)}
    pattern, is_fitted = _patterns(draw, is_kind, config)
    turn = torch.where(is_fitted, 0.0, turn)

    base, second, pattern = _plainly(base, second, pattern, is_kind["any"], rooms, config)

    emission = torch.where(is_kind["outside"], draw(1.2, 4.0), emission)
    base = [torch.where(is_kind["outside"], sky, b) for b, sky in zip(base, (0.75, 0.85, 1.0))]
    is_off = is_kind["screen"] & draw.chance(0.75)  # the others show a picture, most of them glowing
    base = [torch.where(is_off, draw(0.003, 0.02), b) for b in base]
    pattern = torch.where(is_off, atlas(str(rooms.device))[1][config.pool][0], pattern)
    gloss = torch.where(is_kind["screen"], draw(0.3, 0.7), gloss)
    emission = torch.where(is_kind["screen"] & ~is_off & draw.chance(0.6), draw(0.3, 0.9), emission)
    emission = torch.where(is_kind["lamp"], draw(1.0, 2.5), emission)
    base = [torch.where(is_kind["lamp"], b * 0.2 + 0.75, b) for b in base]

    luminance = 0.3 * base[0] + 0.6 * base[1] + 0.1 * base[2]
    infrared = (0.45 * torch.sqrt(luminance) + 0.15 + 0.45 * draw()) * (1 - 0.5 * gloss)
    infrared = torch.where(is_kind["screen"], draw(0.02, 0.3), infrared)
    infrared = torch.where(is_kind["outside"], 0.0, infrared)
    columns = [*base, *second, *third, pattern.to(torch.float32), scale, is_fitted.to(torch.float32), turn, gloss, infrared,
               emission, draw()]
    return torch.stack([c.expand(scale.shape) for c in columns], -1)


FLOOR, CEILING, WALL, FRAMES, DOOR = 0, 1, 2, 4, 5  # materials of the shell, see shell.MATERIALS


def _plainly(base: list[Tensor], second: list[Tensor], pattern: Tensor, is_any: Tensor, rooms: Tensor, config: RoomsConfig
             ) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """The colours and patterns of plain rooms; of the others as they come."""
    if not config.plain:
        return base, second, pattern
    is_plain = Draws(config.seed, rooms, f"plain/{config.pool}", 1).chance(config.plain)  # (r, 1)
    draw = Draws(config.seed, rooms, f"plainly/{config.pool}", pattern.shape[1])
    start = atlas(str(draw.device))[1][config.pool][0]
    slot = torch.arange(pattern.shape[1], device=draw.device)
    keeps_pattern = draw.chance(torch.where(slot == FLOOR, 0.5, 0.12))
    pattern = torch.where(is_plain & is_any & ~keeps_pattern, start + draw.choice(2), pattern)
    is_painted = draw.chance(torch.where((slot == FRAMES) | (slot == DOOR), 0.7, 1.0))
    # share of its own colour that a surface of the shell keeps, and the grey (linear) that takes the rest
    share, grey = torch.ones_like(draw()), draw(0.75, 0.9)
    for where, kept, low, high in ((CEILING, 0.08, 0.75, 0.9), (WALL, 0.35, 0.45, 0.8), (FLOOR, 0.45, 0.03, 0.2),
                                   (FRAMES, 0.1, 0.65, 0.9), (DOOR, 0.3, 0.5, 0.85)):
        share = torch.where((slot == where) & is_painted, kept, share)
        grey = torch.where(slot == where, draw(low, high), grey)
    share = torch.where(is_plain, share, 1.0)
    return [b * share + grey * (1 - share) for b in base], [s * share + grey * (1 - share) for s in second], pattern


def _patterns(draw: Draws, is_kind: dict[str, Tensor], config: RoomsConfig) -> tuple[Tensor, Tensor]:
    """Which pattern of the atlas each material shows, and whether it is stretched over its part instead of repeating."""
    spans = atlas(str(draw.device))[1]
    start, size = spans[config.pool]
    prints = PRINTS[config.pool]
    pattern = start + torch.where(draw.chance(0.3), draw.choice(2), draw.choice(size - prints))
    pattern = torch.where(is_kind["lamp"], start, pattern)
    is_fitted = torch.zeros_like(pattern, dtype=torch.bool)
    groups = {"print": (start + size - prints, prints), "screen": (start + size - prints, prints), "keys": spans["keys"],
              "spines": spans[f"spines_{config.pool}"], "outside": spans[f"outside_{config.pool}"]}
    for name, (first, count) in groups.items():
        pattern = torch.where(is_kind[name], first + draw.choice(count), pattern)
        is_fitted = is_fitted | is_kind[name]
    return pattern, is_fitted
