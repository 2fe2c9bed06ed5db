"""Where the camera stands: at a person's height looking about the room, or bent over a table."""

from __future__ import annotations

import torch
from torch import Tensor

from mask3d_core.randomness import random_bits, stream
from mask3d_core.sources.rooms.config import RoomsConfig
from mask3d_core.sources.rooms.draws import Draws, turn_to_sincos
from mask3d_core.sources.rooms.layout import Scene

TRIES = 14
NEAR = 0.3  # metres; nothing nearer is drawn
_PROBES = ((-0.42, -0.3), (0.0, -0.3), (0.42, -0.3), (-0.25, 0.0), (0.0, 0.0), (0.25, 0.0), (-0.42, 0.3), (0.0, 0.3), (0.42, 0.3))


def _cross(a: Tensor, b: Tensor) -> Tensor:
    ax, ay, az = a.unbind(-1)
    bx, by, bz = b.unbind(-1)
    return torch.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], -1)


def _unit(v: Tensor) -> Tensor:
    x, y, z = v.unbind(-1)
    return v / torch.sqrt(x * x + y * y + z * z).clamp(min=1e-6)[..., None]


def view_keys(room_ids: Tensor, views: Tensor) -> Tensor:
    """One number per frame, mixed from its room and view, int64 (b,)."""
    return random_bits(stream("rooms/view"), room_ids, views)


def place_cameras(scene: Scene, room_ids: Tensor, views: Tensor, config: RoomsConfig) -> tuple[Tensor, Tensor]:
    """A camera per frame.

    Args:
        scene: with one row per frame.
        room_ids, views: int64 (b,).
        config: seed and image size.

    Returns:
        float32 (b, 4) fx, fy, cx, cy in pixels; float32 (b, 4, 4) camera-to-world.
    """
    keys = view_keys(room_ids, views)
    seed = config.seed * 2 + config.is_held_out
    one = Draws(seed, keys, "camera", 1)
    focal = torch.where(one.chance(0.5), one(0.79, 0.86), one(0.75, 1.1)) * config.width
    aspect = one(0.995, 1.005)
    cx = (config.width - 1) / 2 + one(-0.015, 0.015) * config.width
    cy = (config.height - 1) / 2 + one(-0.02, 0.02) * config.height
    intrinsics = torch.cat([focal, focal * aspect, cx, cy], 1)

    draw = Draws(seed, keys, "stand", TRIES)
    position, target = _candidates(scene, draw, one.chance(config.desk))
    forward = _unit(target - position)
    up = torch.tensor([0.0, 0.0, 1.0], device=forward.device).expand_as(forward)
    right = _unit(_cross(forward, up))
    down = _cross(forward, right)
    roll = torch.where(draw.chance(0.15), draw(-0.1, 0.1), draw(-0.015, 0.015))
    sine, cosine = turn_to_sincos(roll)
    right, down = (right * cosine[..., None] + down * sine[..., None], down * cosine[..., None] - right * sine[..., None])

    score = _judge(scene, position, forward, right, down, config.width / focal, config.height / focal)
    best = (score * TRIES + torch.arange(TRIES - 1, -1, -1, device=score.device)).amax(1)
    best = TRIES - 1 - best % TRIES
    axes = torch.stack([right, down, forward, position], -1)  # (b, TRIES, 3, 4)
    chosen = axes.gather(1, best[:, None, None, None].expand(-1, 1, 3, 4))[:, 0]
    last = torch.tensor([0.0, 0.0, 0.0, 1.0], device=chosen.device).expand(len(chosen), 1, 4)
    return intrinsics, torch.cat([chosen, last], 1)


def _candidates(scene: Scene, draw: Draws, wants_desk: Tensor) -> tuple[Tensor, Tensor]:
    """Positions and points looked at, (b, TRIES, 3) each."""
    width, depth, height = scene.size[:, :1], scene.size[:, 1:2], scene.size[:, 2:]
    # Over a table.
    exists = scene.desks[..., 5] > 0
    order = exists.to(torch.int64).cumsum(1)
    wanted = (draw() * order[:, -1:].clamp(min=1)).to(torch.int64) + 1
    index = (order[:, None] < wanted[..., None]).sum(-1).clamp(max=exists.shape[1] - 1)
    desk = scene.desks.gather(1, index[..., None].expand(-1, -1, 6))
    aim_x, aim_y = desk[..., 0] + draw(-0.6, 0.6) * desk[..., 3], desk[..., 1] + draw(-0.6, 0.6) * desk[..., 3]
    aim_z = desk[..., 2] + draw(-0.05, 0.15)
    sine, cosine = turn_to_sincos(draw())
    lift, reach = turn_to_sincos(draw(0.05, 0.2))
    distance = draw(0.65, 1.5)
    over = torch.stack([aim_x + cosine * reach * distance, aim_y + sine * reach * distance, aim_z + lift * distance], -1)
    aim = torch.stack([aim_x, aim_y, aim_z], -1)
    # In the room.
    stand = torch.stack([0.3 + draw() * (width - 0.6), 0.3 + draw() * (depth - 0.6), draw(1.2, 1.8)], -1)
    count = scene.targets.shape[1]
    target = scene.targets.gather(1, draw.choice(count)[..., None].expand(-1, -1, 4))
    is_thing = (target[..., 3] > 0) & draw.chance(0.75)
    anywhere = torch.stack([draw() * width, draw() * depth, draw(0.0, 1.7).minimum(height - 0.3)], -1)
    look = torch.where(is_thing[..., None], target[..., :3], anywhere)
    is_desk = (wants_desk & (exists.any(1, keepdim=True)))[..., None]
    last_tries = (torch.arange(TRIES, device=is_desk.device) >= TRIES - 5)[None, :, None]  # a person always finds room
    is_desk = is_desk & ~last_tries
    return torch.where(is_desk, over, stand), torch.where(is_desk, aim, look)


def _judge(scene: Scene, position: Tensor, forward: Tensor, right: Tensor, down: Tensor, wide: Tensor, high: Tensor) -> Tensor:
    """How good a view is: free to stand counts most, then nothing too near, then a sensible middle distance."""
    parts = scene.parts
    offset = position[:, :, None] - parts["center"][:, None]  # (b, t, p, 3)
    rotation = parts["rotation"].unflatten(-1, (3, 3))[:, None]

    def local(v: Tensor) -> list[Tensor]:
        x, y, z = v.unbind(-1)
        return [x * rotation[..., 0, i] + y * rotation[..., 1, i] + z * rotation[..., 2, i] for i in range(3)]

    half = parts["half"][:, None].unbind(-1)
    origin = local(offset)
    outside = [(o.abs() - h).clamp(min=0) for o, h in zip(origin, half)]
    gap = outside[0] * outside[0] + outside[1] * outside[1] + outside[2] * outside[2]
    active = parts["is_active"][:, None]
    is_free = ((gap > 0.32 ** 2) | ~active).all(-1)
    inside = ((position > 0.15) & (position < scene.size[:, None] - 0.15)).all(-1)

    depths = []
    for across, along in _PROBES:
        ray = forward + right * (across * wide)[..., None] + down * (along * high)[..., None]
        exit_at = torch.where(ray > 0, scene.size[:, None] - position, -position) / ray
        depth = exit_at.abs().amin(-1)
        direction = local(ray[:, :, None].expand_as(offset))
        enter, leave = torch.full_like(gap, -1e9), torch.full_like(gap, 1e9)
        for o, d, h in zip(origin, direction, half):
            inverse = 1 / d
            middle, reach = -o * inverse, h * inverse.abs()
            enter, leave = torch.maximum(enter, middle - reach), torch.minimum(leave, middle + reach)
        hit = torch.where((enter < leave) & (enter > 0) & active, enter, 1e9)
        depths.append(torch.minimum(depth, hit.amin(-1)))
    depths = torch.stack(depths, -1).sort(-1).values
    nearest, middle = depths[..., 1], depths[..., len(_PROBES) // 2]
    is_clear = (nearest > 0.5) & (depths[..., 0] > 0.35)
    is_sensible = (middle > 0.65) & (middle < 4.2)
    return 4 * (is_free & inside).to(torch.int64) + 2 * is_clear.to(torch.int64) + is_sensible.to(torch.int64)
