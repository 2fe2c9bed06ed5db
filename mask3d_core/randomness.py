"""Random numbers as a pure function of integer keys: the same on CPU, GPU and any number of ranks.

Masks and augmentation must be a function of (seed, frame id, epoch). ``torch.Generator`` gives other numbers on
another device and depends on the order of calls, so we hash the keys instead (the finaliser of SplitMix64,
Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014). 64-bit integer arithmetic wraps
in the same way everywhere.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from mask3d_core.shapes import Float, Int

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def _logical_shift_right(value: Tensor, bits: int) -> Tensor:
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _mix(value: Tensor) -> Tensor:
    value = (value ^ _logical_shift_right(value, 30)) * _MIX_1
    value = (value ^ _logical_shift_right(value, 27)) * _MIX_2
    return value ^ _logical_shift_right(value, 31)


def stream(name: str) -> int:
    """A stable integer for a named stream of random numbers, so that "mask" and "crop" never share one.

    Returns:
        An integer in 0..2^31-1; the same in every process and on every machine.
    """
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little") & 0x7FFFFFFF


def random_bits(*keys: int | Tensor, device: torch.device | str | None = None) -> Int[Tensor, "..."]:
    """Hash integer keys to 63 random bits.

    Args:
        keys: integers or integer tensors that broadcast against each other. Order matters.
        device: where the answer lives; by default where the first tensor key lives.

    Returns:
        int64 in 0..2^63-1, of the broadcast shape.
    """
    if device is None:
        device = next((key.device for key in keys if isinstance(key, Tensor)), torch.device("cpu"))
    state = torch.zeros((), dtype=torch.int64, device=device)
    for key in keys:
        if not isinstance(key, Tensor):
            key = torch.full((), int(key), dtype=torch.int64, device=device)
        state = _mix((state ^ _mix(key.to(device=device, dtype=torch.int64) + _GOLDEN)) + _GOLDEN)
    return _logical_shift_right(state, 1)


def uniform(*keys: int | Tensor, device: torch.device | str | None = None) -> Float[Tensor, "..."]:
    """Uniform numbers in [0, 1), float32 with 24 random bits, as a function of the keys.

    Args, Returns: as :func:`random_bits`.
    """
    return (random_bits(*keys, device=device) >> 39).to(torch.float32) * (1.0 / (1 << 24))
