"""From room ids to frames."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from mask3d_core.shapes import Bool, Float, Int, UInt8
from mask3d_core.sources.rooms.camera import place_cameras, view_keys
from mask3d_core.sources.rooms.config import RoomsConfig
from mask3d_core.sources.rooms.layout import Scene, build_rooms
from mask3d_core.sources.rooms.lighting import light_up, surface_color
from mask3d_core.sources.rooms.picture import expose
from mask3d_core.randomness import stream, uniform
from mask3d_core.sources.rooms.sensor import measure
from mask3d_core.sources.rooms.surface import find_surfaces, look_up, to_image
from mask3d_core.sources.rooms.trace import TILE, Rays


_BYTES_PER_PIXEL = 800  # peak, an upper estimate of some 100 float32 pictures and the tile lists


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
    chunk = _chunk(config, device)
    batches = [_render(_rows(scene, inverse[i:i + chunk]), room_ids[i:i + chunk], views[i:i + chunk], config)
               for i in range(0, len(room_ids), chunk)]
    return RoomsBatch(*(torch.cat([getattr(b, f.name) for b in batches]) for f in fields(RoomsBatch)))


def _chunk(config: RoomsConfig, device: torch.device) -> int:
    """Frames at a time: on a CPU what its cache holds; on a GPU what fits a third of its free memory."""
    pixels = config.height * config.width
    if device.type != "cuda":
        return max(1, 2 * 240 * 320 // pixels)
    free, _ = torch.cuda.mem_get_info(device)
    return int(min(512, max(1, free // 3 // (_BYTES_PER_PIXEL * pixels))))


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
    albedo = surface_color(surface, material, intrinsics[:, 0])
    radiance = light_up(scene, surface, rays, material, albedo)

    def crop(values: Tensor) -> Tensor:
        return values[:, :config.height, :config.width].contiguous()

    color = expose([crop(r) for r in radiance], view_keys(room_ids, views), config)
    depth = crop(to_image(surface.depth, rays))
    is_valid = torch.ones_like(depth, dtype=torch.bool)
    if config.sensor:
        slant, infrared, gloss = (crop(to_image(v, rays)) for v in (surface.slant, material[14], material[13]))
        keys = view_keys(room_ids, views)
        measured, is_measured = measure(depth, slant, infrared, gloss, intrinsics, keys, config)
        is_sensed = uniform(stream("rooms/sensed"), config.seed, keys)[:, None, None] < float(config.sensor)
        depth, is_valid = torch.where(is_sensed, measured, depth), is_measured | ~is_sensed
    return RoomsBatch(color, depth, is_valid, intrinsics, pose, crop(to_image(semantic, rays)).to(torch.uint8),
                      crop(to_image(instance, rays)).to(torch.int32), room_ids, views)
