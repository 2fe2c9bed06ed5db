"""The bill of materials of a batch of rooms: solid parts (boxes, cylinders, ellipsoids), each with its labels.

Every call adds the same number of parts to every room; ``active`` says in which rooms they really stand.
The world is metres with z up, the floor at z = 0 and one corner of the room at the origin.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mask3d_core.sources.rooms.draws import turn_to_sincos

KINDS = ("box", "cylinder", "ellipsoid")
STRUCTURE = 14  # floor, ceiling, four walls, and side and back of four openings: ids before the first part


@dataclass(frozen=True)
class Place:
    """Where a piece stands: an upright local frame with x to its side and y to its front. All fields (r, n)."""

    x: Tensor
    y: Tensor
    z: Tensor
    sine: Tensor
    cosine: Tensor

    def point(self, x, y, z) -> tuple[Tensor, Tensor, Tensor]:
        """A local point in the world."""
        return self.x + self.cosine * x - self.sine * y, self.y + self.sine * x + self.cosine * y, self.z + z

    def inner(self, x: Tensor, y: Tensor, z: Tensor, turns: Tensor) -> Place:
        """Places inside this one: arguments (r, n, k) give a place of (r, n * k)."""
        sine, cosine = turn_to_sincos(turns)
        base = Place(*(getattr(self, name)[..., None] for name in ("x", "y", "z", "sine", "cosine")))
        world = base.point(x, y, z)
        fields = (*world, base.sine * cosine + base.cosine * sine, base.cosine * cosine - base.sine * sine)
        shape = torch.broadcast_shapes(*(f.shape for f in fields))
        return Place(*(f.expand(shape).flatten(1) for f in fields))


class Parts:
    """Collects parts; :meth:`scene` packs them.

    Args:
        rooms: how many rooms.
        device: where everything lives.
    """

    def __init__(self, rooms: int, device: torch.device):
        self.rooms, self.device = rooms, device
        self._floats: dict[str, list[Tensor]] = {kind: [] for kind in KINDS}
        self._labels: dict[str, list[Tensor]] = {kind: [] for kind in KINDS}
        self.material_kinds: list[str] = []
        self._instances = 0

    def materials(self, count: int, kind: str = "any") -> Tensor:
        """Ids of ``count`` new materials per room, int64 (count,)."""
        start = len(self.material_kinds)
        self.material_kinds += [kind] * count
        return torch.arange(start, start + count, device=self.device)

    def instances(self, count: int) -> Tensor:
        """Ids of ``count`` new objects per room, int64 (count,), from 1."""
        self._instances += count
        return torch.arange(self._instances - count + 1, self._instances + 1, device=self.device)

    def add(self, kind: str, place: Place, center, half, *, semantic, material, instance, active,
            turns=None, tilt=None) -> None:
        """Add one part per place.

        Args:
            kind: "box", "cylinder" (axis z) or "ellipsoid".
            place: (r, n) places.
            center: local x, y, z in metres; numbers or (r, n).
            half: half sizes along the part's own axes in metres; numbers or (r, n).
            semantic, material, instance: ints or (n,) or (r, n).
            active: bool (r, n).
            turns: turn about the vertical, in full turns.
            tilt: turn about the part's own x axis after that, in full turns.
        """
        like = place.x
        sine, cosine = place.sine, place.cosine
        if turns is not None:
            s, c = turn_to_sincos(torch.as_tensor(turns, dtype=torch.float32, device=self.device))
            sine, cosine = sine * c + cosine * s, cosine * c - sine * s
        zero, one = torch.zeros_like(like), torch.ones_like(like)
        ts, tc = (zero, one) if tilt is None else turn_to_sincos(
            torch.as_tensor(tilt, dtype=torch.float32, device=self.device))
        values = [*place.point(*center), *half,
                  cosine, -sine * tc, sine * ts, sine, cosine * tc, -cosine * ts, zero, ts, tc]
        floats = torch.stack([torch.as_tensor(v, dtype=torch.float32, device=self.device).expand(like.shape)
                              for v in values], -1)
        labels = torch.stack([torch.as_tensor(v, dtype=torch.int64, device=self.device).expand(like.shape)
                              for v in (semantic, material, instance, active)], -1)
        self._floats[kind].append(floats)
        self._labels[kind].append(labels)

    def packed(self) -> dict[str, Tensor]:
        """Every part, active ones first, boxes before cylinders before ellipsoids.

        Returns:
            ``center`` and ``half`` (r, p, 3), ``rotation`` (r, p, 9) row by row (local to world), ``semantic``,
            ``material`` and ``instance`` int64 (r, p), ``is_active`` bool (r, p), ``counts`` parts of each kind.
        """
        floats, labels, counts = [], [], []
        for kind in KINDS:
            f, n = torch.cat(self._floats[kind], 1), torch.cat(self._labels[kind], 1)
            active = n[..., 3]
            most = int(active.sum(1).amax())
            order = torch.argsort(1 - active, dim=1, stable=True)[:, :most]
            floats.append(f.gather(1, order[..., None].expand(-1, -1, f.shape[-1])))
            labels.append(n.gather(1, order[..., None].expand(-1, -1, 4)))
            counts.append(most)
        f, n = torch.cat(floats, 1), torch.cat(labels, 1)
        return {"center": f[..., :3], "half": f[..., 3:6].clamp(min=5e-4), "rotation": f[..., 6:],
                "semantic": n[..., 0], "material": n[..., 1], "instance": n[..., 2], "is_active": n[..., 3] > 0,
                "counts": tuple(counts)}
