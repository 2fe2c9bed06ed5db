"""From light to a camera's picture: lens, exposure, white balance, vignetting, tone curve and noise."""

from __future__ import annotations

import torch
from torch import Tensor

from mask3d_core.randomness import random_bits, stream
from mask3d_core.sources.rooms.config import RoomsConfig
from mask3d_core.sources.rooms.draws import Draws


def _blur(image: Tensor, strengths: list[Tensor]) -> Tensor:
    """A lens that is never quite sharp and a hand that is never quite still.

    Args:
        image: (f, h, w).
        strengths: four of (f, 1, 1): how much light a pixel shares with its neighbours up and down, left and right, then
            with those three pixels away in the same two directions.
    """
    for index, strength in enumerate(strengths):
        axis, step = 1 + index % 2, 1 if index < 2 else 3
        length = image.shape[axis]
        before = torch.cat([image.narrow(axis, 0, step), image.narrow(axis, 0, length - step)], axis)
        after = torch.cat([image.narrow(axis, step, length - step), image.narrow(axis, length - step, step)], axis)
        image = image + ((before + after) * 0.5 - image) * strength
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
    soft, moves = one(0.12, 0.5), one.chance(0.15)
    blur = [v[..., None] for v in (soft, soft, one(0.0, 0.55) * moves, one(0.0, 0.55) * moves)]
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
        value = _blur(radiance[i].clamp(max=8.0), blur) * gains[i][..., None] * fall
        value = torch.sqrt((value * (1 + 0.15 * value) / (1 + value * 0.75)).clamp(0, 1))
        grain = ((bits >> (20 * i)) & 1023) + ((bits >> (20 * i + 10)) & 1023)
        value = value + (grain.to(torch.float32) / 1023 - 1) * noise
        channels.append((value * 255 + 0.5).clamp(0, 255).to(torch.uint8))
    return torch.stack(channels, -1)
