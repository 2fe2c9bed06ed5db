"""What a Kinect-like structured-light sensor would have measured instead of true depth.

A projector beside the camera throws dots; depth comes from their shift (disparity), in steps of 1/8 pixel of a
640-pixel image. So precision falls with the square of the distance, what the projector does not see has no depth
(a shadow at one side of everything near), and dark, glancing, shiny or distant surfaces return too little light.
Numbers: baseline 7.5 cm, 1/8 pixel (Khoshelham and Elberink, "Accuracy and resolution of Kinect depth data", Sensors
2012); the shares of holes are ours, set to look like real frames.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mask3d_core.randomness import stream, uniform
from mask3d_core.sources.rooms.config import RoomsConfig
from mask3d_core.sources.rooms.draws import Draws

BASELINE = 0.075  # metres
STEPS = 8  # per pixel of disparity


def _patchy(keys: Tensor, name: str, height: int, width: int, cell: int) -> Tensor:
    """Smooth noise (b, h, w) in 0..1 with a lattice of ``cell`` pixels."""
    rows, columns = height // cell + 2, width // cell + 2
    lattice = uniform(stream("rooms/" + name), keys[:, None, None],
                      torch.arange(rows, device=keys.device)[:, None], torch.arange(columns, device=keys.device))
    y = torch.arange(height, device=keys.device)
    x = torch.arange(width, device=keys.device)
    top, left = torch.div(y, cell, rounding_mode="floor"), torch.div(x, cell, rounding_mode="floor")
    share_y, share_x = ((y - top * cell).to(torch.float32) / cell)[:, None], (x - left * cell).to(torch.float32) / cell
    upper = lattice.index_select(1, top)
    bands = upper + (lattice.index_select(1, top + 1) - upper) * share_y
    before = bands.index_select(2, left)
    return before + (bands.index_select(2, left + 1) - before) * share_x


def measure(depth: Tensor, slant: Tensor, infrared: Tensor, gloss: Tensor, intrinsics: Tensor, keys: Tensor,
            config: RoomsConfig) -> tuple[Tensor, Tensor]:
    """Pass true depth through the sensor.

    Args:
        depth: float32 (b, h, w) metres.
        slant: (b, h, w) cosine between the ray and the surface normal.
        infrared: (b, h, w) share of infrared light that comes back, about 0..1.
        gloss: (b, h, w) 0..1.
        intrinsics: (b, 4) in pixels.
        keys: int64 (b,), one per frame.
        config: seed and image size.

    Returns:
        Measured depth, 0 where there is none, and where there is some.
    """
    one = Draws(config.seed * 2 + config.is_held_out, keys, "sensor", 1)
    _, height, width = depth.shape

    def draw(low: float, high: float) -> Tensor:
        return one(low, high)[..., None]

    near, far = draw(0.4, 0.7), draw(3.0, 5.2)
    focal = intrinsics[:, 0, None, None]
    shift = BASELINE * focal / depth
    # The projector stands to the right: a pixel is lit if no pixel to its right blocks its dot.
    column = torch.arange(width, device=depth.device, dtype=torch.float32)
    dot = column - shift
    blocker = torch.flip(torch.cummin(torch.flip(dot, [2]), 2).values, [2])
    is_lit = dot <= blocker + 0.5

    fine, coarse = _patchy(keys, "fine", height, width, 4), _patchy(keys, "coarse", height, width, 24)
    patchy = 0.5 * fine + 0.5 * coarse
    signal = infrared * (0.25 + 0.75 * slant.clamp(min=0)) / (1 + (depth / draw(2.0, 4.0)) ** 2)
    is_bright = signal > draw(0.01, 0.1) * (0.4 + 1.2 * patchy)
    is_steep = slant < draw(0.06, 0.22) * (0.5 + patchy)
    is_glare = (gloss > 0.2) & (slant > 0.985 + 0.02 * patchy)
    is_lost = coarse + 0.15 * fine < draw(-0.05, 0.22)

    # Near an edge the window of dots straddles two surfaces.
    jump = torch.zeros_like(is_lit)
    for axis in (1, 2):
        a, b = depth.narrow(axis, 0, depth.shape[axis] - 1), depth.narrow(axis, 1, depth.shape[axis] - 1)
        edge = (a - b).abs() > 0.04 + 0.03 * torch.minimum(a, b)
        jump.narrow(axis, 0, depth.shape[axis] - 1).logical_or_(edge)
        jump.narrow(axis, 1, depth.shape[axis] - 1).logical_or_(edge)
    ragged = jump & (fine < draw(0.3, 0.8))

    scale = 640.0 / config.width * STEPS
    wobble = (_patchy(keys, "wobble", height, width, 3) - 0.5) * draw(0.3, 1.6)
    steps = torch.round(shift * scale + wobble).clamp(min=1)
    measured = BASELINE * focal * scale / steps
    is_valid = (is_lit & is_bright & ~is_steep & ~is_glare & ~is_lost & ~ragged & (depth > near) & (depth < far)
                & (measured > 0.3))
    return torch.where(is_valid, measured, 0.0), is_valid
