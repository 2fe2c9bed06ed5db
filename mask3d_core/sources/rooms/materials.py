"""What things are made of: three colours, a pattern, gloss, and how well infrared comes back.

A material is drawn without knowing what it will cover. A few parts ask for a *kind* (a screen, a printed page, the
backs of books, the view from a window), because the kind is what they are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mask3d_core.sources.rooms.config import RoomsConfig
from mask3d_core.sources.rooms.draws import Draws
from mask3d_core.sources.rooms.textures import atlas

COLUMNS = 17  # colours 0..8, pattern 9, scale 10, fit 11, turn 12, gloss 13, infrared 14, emission 15, phase 16


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
    spans = atlas(str(rooms.device))[1]

    def is_kind(name: str) -> Tensor:
        return torch.tensor([kind == name for kind in kinds], device=rooms.device)

    def pick(group: str, first: int = 0, count: int | None = None) -> Tensor:
        start, size = spans[group]
        return start + first + draw.choice(size - first if count is None else count)

    held_out = config.is_held_out
    base, second, third = _color(draw, held_out), _color(draw, held_out), _color(draw, held_out)
    closeness = torch.where(draw.chance(0.65), draw(0.1, 0.45), draw(0.5, 1.0))  # most patterns are tone on tone
    second = [b + (s - b) * closeness for b, s in zip(base, second)]
    prints_count = 8 if held_out else 12  # the last patterns of a pool are printed matter
    prints = spans[config.pool][1] - prints_count
    is_plain = draw.chance(0.3)
    pattern = torch.where(is_plain, spans[config.pool][0] + draw.choice(2), pick(config.pool, 0, spans[config.pool][1] - prints_count))
    scale = draw(0.25, 1.3) * draw(0.6, 1.0)
    fit = torch.zeros_like(scale)
    turn = draw.choice(2).to(torch.float32)
    gloss = torch.where(draw.chance(0.3), draw(0.15, 0.6), draw(0.0, 0.12))
    emission = torch.zeros_like(scale)

    kind = is_kind("print")
    pattern = torch.where(kind, pick(config.pool, prints), pattern)
    fit, turn = torch.where(kind, 1.0, fit), torch.where(kind, 0.0, turn)
    for name in ("spines", "outside"):
        kind = is_kind(name)
        pattern = torch.where(kind, pick(f"{name}_{config.pool}"), pattern)
        fit, turn = torch.where(kind, 1.0, fit), torch.where(kind, 0.0, turn)
    emission = torch.where(is_kind("outside"), draw(1.2, 4.0), emission)
    base = [torch.where(is_kind("outside"), s, b) for b, s in zip(base, (0.75, 0.85, 1.0))]
    kind = is_kind("keys")
    pattern = torch.where(kind, pick("keys"), pattern)
    fit, turn = torch.where(kind, 1.0, fit), torch.where(kind, 0.0, turn)
    kind = is_kind("screen") & draw.chance(0.75)  # switched off; the others glow with something
    base = [torch.where(kind, draw(0.003, 0.02), b) for b in base]
    pattern = torch.where(kind, spans[config.pool][0], pattern)
    gloss = torch.where(is_kind("screen"), draw(0.3, 0.7), gloss)
    emission = torch.where(is_kind("screen") & ~kind & draw.chance(0.6), draw(0.3, 0.9), emission)
    fit = torch.where(is_kind("screen"), 1.0, fit)
    emission = torch.where(is_kind("lamp"), draw(1.0, 2.5), emission)
    base = [torch.where(is_kind("lamp"), b * 0.2 + 0.75, b) for b in base]
    pattern = torch.where(is_kind("lamp"), spans[config.pool][0], pattern)

    luminance = 0.3 * base[0] + 0.6 * base[1] + 0.1 * base[2]
    infrared = (0.45 * torch.sqrt(luminance) + 0.15 + 0.45 * draw()) * (1 - 0.5 * gloss)
    infrared = torch.where(is_kind("screen"), draw(0.02, 0.3), infrared)
    infrared = torch.where(is_kind("outside"), torch.zeros_like(infrared), infrared)
    phase = draw(0.0, 1.0)
    columns = [*base, *second, *third, pattern.to(torch.float32), scale, fit, turn, gloss, infrared, emission, phase]
    return torch.stack([c.expand(scale.shape) for c in columns], -1)
