"""Procedural rooms: indoor scenes rendered in torch alone, batched, on CPU or GPU, exact to the seed.

The way of a frame: :mod:`layout` builds the room and places :mod:`furniture` and :mod:`clutter` as solids (:mod:`parts`)
made of :mod:`materials`; :mod:`camera` finds a place to stand; :mod:`trace` finds what each ray meets; :mod:`render`
lights it; :mod:`sensor` turns true depth into what a Kinect would have measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mask3d_core.errors import ConfigError
from mask3d_core.frames import FrameOrigin, Intrinsics, RGBDFrame
from mask3d_core.shapes import Bool, Float, Int, UInt8
from mask3d_core.sources.rooms.camera import place_cameras, view_keys
from mask3d_core.sources.rooms.config import CLASS_NAMES, FURNITURE_LEVELS, RoomsConfig
from mask3d_core.sources.rooms.layout import Scene, build_rooms
from mask3d_core.sources.rooms.render import _albedo, expose, find_surfaces, light_up, look_up, to_image
from mask3d_core.sources.rooms.sensor import measure
from mask3d_core.sources.rooms.trace import TILE, Rays

__all__ = ["CLASS_NAMES", "FURNITURE_LEVELS", "Rooms", "RoomsBatch", "RoomsConfig", "render_rooms"]


@dataclass(frozen=True)
class RoomsBatch:
    """Rendered frames on their device.

    Args:
        color: uint8 RGB.
        depth: metres along the optical axis, 0 where not valid.
        is_valid: where the sensor measured; everywhere without a sensor.
        intrinsics: fx, fy, cx, cy in pixels.
        pose: camera-to-world, x right, y down, z forward; the world has z up.
        semantic: class ids, index into ``CLASS_NAMES``.
        instance: object ids within the room, 0 for floor, ceiling and walls.
        room_ids, views: what was asked for.
    """

    color: UInt8[Tensor, "b h w 3"]
    depth: Float[Tensor, "b h w"]
    is_valid: Bool[Tensor, "b h w"]
    intrinsics: Float[Tensor, "b 4"]
    pose: Float[Tensor, "b 4 4"]
    semantic: UInt8[Tensor, "b h w"]
    instance: Int[Tensor, "b h w"]
    room_ids: Int[Tensor, "b"]
    views: Int[Tensor, "b"]


def _rows(scene: Scene, index: Tensor) -> Scene:
    """The scene with one row per entry of ``index``."""
    parts = {name: value if name == "counts" else value[index] for name, value in scene.parts.items()}
    picked = {f.name: getattr(scene, f.name)[index] for f in fields(Scene) if f.name != "parts"}
    return replace(scene, parts=parts, **picked)


@torch.no_grad()
def render_rooms(room_ids: Int[Tensor, "b"], views: Int[Tensor, "b"], config: RoomsConfig,
                 device: str | torch.device = "cpu") -> RoomsBatch:
    """Render frames. Each depends on its room id, its view and the configuration alone, bit for bit, on one device.

    Args:
        room_ids, views: which frames.
        config: what rooms.
        device: where to render.

    Returns:
        The frames, on ``device``.
    """
    device = torch.device(device)
    room_ids, views = room_ids.to(device, torch.int64), views.to(device, torch.int64)
    rooms, inverse = torch.unique(room_ids, return_inverse=True)
    scene = build_rooms(rooms, config)
    chunk = 64 if device.type != "cpu" else max(1, 320 * 240 * 2 // (config.height * config.width))
    batches = [_render(_rows(scene, inverse[i:i + chunk]), room_ids[i:i + chunk], views[i:i + chunk], config)
               for i in range(0, len(room_ids), chunk)]
    return RoomsBatch(*(torch.cat([getattr(b, f.name) for b in batches]) for f in fields(RoomsBatch)))


def _render(scene: Scene, room_ids: Tensor, views: Tensor, config: RoomsConfig) -> RoomsBatch:
    intrinsics, pose = place_cameras(scene, room_ids, views, config)
    rays = Rays.of(intrinsics, pose, config.height, config.width)
    spread = (TILE - 1) / 2 * 1.4143 / intrinsics[:, :2].amin(1)
    surface = find_surfaces(scene, rays, spread)
    frames = len(room_ids)
    labels = torch.cat([scene.shell_labels, torch.stack([scene.parts[n] for n in ("semantic", "material", "instance")], -1)], 1)
    frame = torch.arange(frames, device=pose.device)[:, None, None, None]
    semantic, material_id, instance = look_up(labels.flatten(0, 1), surface.label + frame * labels.shape[1])
    material = look_up(scene.materials.flatten(0, 1), material_id + frame * scene.materials.shape[1])
    albedo = _albedo(surface, material, scene.openings, rays, intrinsics[:, 0])
    radiance = light_up(scene, surface, rays, material, albedo)

    def crop(values: Tensor) -> Tensor:
        return values[:, :config.height, :config.width].contiguous()

    color = expose([crop(r) for r in radiance], view_keys(room_ids, views), config)
    depth = crop(to_image(surface.depth, rays))
    is_valid = torch.ones_like(depth, dtype=torch.bool)
    if config.sensor:
        slant, infrared, gloss = (crop(to_image(v, rays)) for v in (surface.slant, material[14], material[13]))
        depth, is_valid = measure(depth, slant, infrared, gloss, intrinsics, view_keys(room_ids, views), config)
    return RoomsBatch(color, depth, is_valid, intrinsics, pose, crop(to_image(semantic, rays)).to(torch.uint8),
                      crop(to_image(instance, rays)).to(torch.int32), room_ids, views)


class Rooms:
    """Rooms as a :class:`mask3d_core.sources.Source`: frame i is view i % views_per_room of room i // views_per_room.

    Args:
        path: rooms come from no file; must be None.
        count: how many frames.
        device: where to render.
        options: fields of :class:`RoomsConfig`.

    Raises:
        ConfigError: a path, an unknown option or an impossible value.
    """

    name = "rooms"
    class_names: Sequence[str] = CLASS_NAMES

    def __init__(self, path: str | None = None, count: int = 64, device: str | torch.device = "cpu", **options: Any):
        problems = []
        if path is not None:
            problems.append(f"rooms are rendered, not read: leave the path out, got {str(path)!r}")
        if count < 1:
            problems.append(f"count must be at least 1 frame, got {count}")
        known = {f.name for f in fields(RoomsConfig)}
        problems += [f"rooms has no option {key!r}; it has count, device, {', '.join(sorted(known))}" for key in set(options) - known]
        if problems:
            raise ConfigError(problems, "rooms")
        self.config, self.count, self.device = RoomsConfig(**options), int(count), torch.device(device)

    def __len__(self) -> int:
        return self.count

    def _check(self, index: int) -> int:
        if not -self.count <= index < self.count:
            raise IndexError(f"expected a frame index below {self.count}; got {index}. Ask for more with count=...")
        return index % self.count

    def sequence(self, index: int) -> str:
        """The room that frame belongs to."""
        return f"room-{self._check(index) // self.config.views_per_room:06d}"

    def frame_name(self, index: int) -> str:
        """The frame's view of its room."""
        return f"view-{self._check(index) % self.config.views_per_room:03d}"

    def batch(self, indices: Sequence[int]) -> RoomsBatch:
        """Render frames as one batch of tensors on ``device``."""
        ids = torch.tensor([self._check(int(i)) for i in indices], dtype=torch.int64)
        per_room = self.config.views_per_room
        return render_rooms(torch.div(ids, per_room, rounding_mode="floor"), ids % per_room, self.config, self.device)

    def read_batch(self, indices: Sequence[int]) -> list[RGBDFrame]:
        """Render several frames at once; faster than one by one, and bit-identical to it."""
        batch = self.batch(indices)
        host = {f.name: getattr(batch, f.name).cpu().numpy() for f in fields(RoomsBatch)}
        return [RGBDFrame(host["color"][i], host["depth"][i], host["is_valid"][i], Intrinsics.from_array(host["intrinsics"][i]),
                          host["pose"][i].astype(np.float64), host["semantic"][i], host["instance"][i],
                          FrameOrigin(self.name, self.sequence(int(index)), self.frame_name(int(index))))
                for i, index in enumerate(indices)]

    def read(self, index: int) -> RGBDFrame:
        """Render one frame."""
        return self.read_batch([index])[0]

    def describe(self) -> dict[str, Any]:
        """The source as plain JSON values."""
        return {"source": self.name, "count": self.count, **asdict(self.config)}
