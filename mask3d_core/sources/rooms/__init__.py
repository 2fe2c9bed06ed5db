"""Procedural rooms: indoor scenes rendered in torch alone, batched, on CPU or GPU, exact to the seed.

The way of a frame: :mod:`layout` builds the room and places :mod:`furniture` and :mod:`clutter` as solids (:mod:`parts`)
made of :mod:`materials`; :mod:`camera` finds a place to stand; :mod:`trace` and :mod:`surface` find what each ray meets;
:mod:`lighting` and :mod:`picture` make it visible; :mod:`sensor` turns true depth into what a Kinect would have measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch

from mask3d_core.errors import ConfigError
from mask3d_core.frames import FrameOrigin, Intrinsics, RGBDFrame
from mask3d_core.sources.rooms.config import CLASS_NAMES, FURNITURE_LEVELS, RoomsConfig
from mask3d_core.sources.rooms.render import RoomsBatch, render_rooms

__all__ = ["CLASS_NAMES", "FURNITURE_LEVELS", "Rooms", "RoomsBatch", "RoomsConfig", "render_rooms"]


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
    labels = frozenset({"semantic", "instance"})

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
        return {"source": self.name, "count": self.count, **self.config.describe()}
