"""Random draws per room and slot, and the few bits of arithmetic that must not depend on the batch.

A frame has to be bit-identical whatever batch it is rendered in. Vectorised sine or matrix products may round
differently with the size of the batch; sums, products, quotients and square roots of IEEE floats never do.
So everything here is made of those.
"""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor

from mask3d_core.randomness import stream, uniform

_TAU = 6.283185307179586


def turn_to_sincos(turns: Tensor) -> tuple[Tensor, Tensor]:
    """Sine and cosine of an angle in full turns, from a Taylor polynomial of the half angle; error below 1e-6."""
    half = (turns - torch.round(turns)) * (_TAU / 2)
    square = half * half
    sine = half * (1 - square / 6 * (1 - square / 20 * (1 - square / 42 * (1 - square / 72 * (1 - square / 110)))))
    cosine = 1 - square / 2 * (1 - square / 12 * (1 - square / 30 * (1 - square / 56 * (1 - square / 90
                                                                                    * (1 - square / 132)))))
    doubled_sine, doubled_cosine = 2 * sine * cosine, cosine * cosine - sine * sine
    length = torch.sqrt(doubled_sine * doubled_sine + doubled_cosine * doubled_cosine)
    return doubled_sine / length, doubled_cosine / length


def first_true(flags: Tensor) -> Tensor:
    """Index of the first True along the last axis (0 where there is none)."""
    count = flags.shape[-1]
    score = flags.to(torch.int64) * torch.arange(count, 0, -1, device=flags.device)
    best = score.amax(dim=-1)
    return torch.where(best > 0, count - best, torch.zeros_like(best))


def take(values: Tensor, index: Tensor) -> Tensor:
    """``values`` (..., n) at ``index`` (...)."""
    return values.gather(-1, index.unsqueeze(-1)).squeeze(-1)


class Draws:
    """Uniform numbers for ``count`` slots in each of some rooms, one column per call.

    Args:
        seed: of the source.
        rooms: int64 (r,) room ids; or ids that already mix room and view.
        name: the stream, so that "chairs" and "pictures" never share numbers.
        count: slots per room.
    """

    _BLOCK = 24

    def __init__(self, seed: int, rooms: Tensor, name: str, count: int):
        self._seed, self._rooms, self._stream = seed, rooms, stream("rooms/" + name)
        self._slots = torch.arange(count, device=rooms.device)
        self._block: Tensor | None = None
        self._used = 0

    @property
    def device(self) -> torch.device:
        """Where the numbers are."""
        return self._rooms.device

    def __call__(self, low: float | Tensor = 0.0, high: float | Tensor = 1.0) -> Tensor:
        """Uniform float32 (r, count) in [low, high)."""
        column = self._used % self._BLOCK
        if column == 0:
            keys = torch.arange(self._used, self._used + self._BLOCK, device=self._rooms.device)
            self._block = uniform(self._stream, self._seed, self._rooms[None, :, None], self._slots, keys[:, None, None])
        self._used += 1
        return self._block[column] * (high - low) + low

    def chance(self, probability: float | Tensor) -> Tensor:
        """True with that probability, bool (r, count)."""
        return self() < probability

    def choice(self, options: int) -> Tensor:
        """An int64 in 0..options-1, (r, count)."""
        return (self() * options).to(torch.int64).clamp(max=options - 1)

    def weighted(self, weights: list[float]) -> Tensor:
        """An index drawn with these weights, int64 (r, count)."""
        ends = list(accumulate(weights))
        bounds = torch.tensor([end / ends[-1] for end in ends[:-1]], dtype=torch.float32, device=self.device)
        return (self()[..., None] >= bounds).sum(-1)
