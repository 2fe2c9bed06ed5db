"""An atlas of procedural patterns with mip levels, made once per device.

A texel holds two weights: how much of the second and of the third colour of a material shows over the first.
Patterns know nothing of classes. The train and test pools share none.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from mask3d_core.sources.rooms.patterns import SIZE, keys, outside, spines, test_patterns, train_patterns

LEVELS = SIZE.bit_length()  # 128, 64, ..., 1


@lru_cache(maxsize=4)
def atlas(device: str) -> tuple[Tensor, dict[str, tuple[int, int]]]:
    """The atlas on a device.

    Returns:
        float32 (n, 2) texels, mip level by mip level and pattern by pattern; and the (first, count) of each group of
        patterns: "train", "test", "spines_train", "spines_test", "keys", "outside_train", "outside_test".
    """
    groups = {"train": train_patterns(), "test": test_patterns(),
              "spines_train": [spines(170), spines(171), spines(172)], "spines_test": [spines(180), spines(181)],
              "keys": [keys()], "outside_train": [outside(190), outside(193)], "outside_test": [outside(196)]}
    spans, layers = {}, []
    for name, patterns in groups.items():
        spans[name] = (len(layers), len(patterns))
        layers += [torch.stack(torch.broadcast_tensors(*pair), -1).clamp(0, 1) for pair in patterns]
    image = torch.stack(layers)  # (n, SIZE, SIZE, 2)
    levels = []
    for _ in range(LEVELS):
        levels.append(image.reshape(-1, 2))
        if image.shape[1] > 1:
            half = image.shape[1] // 2
            image = image.reshape(-1, half, 2, half, 2, 2).mean((2, 4))
    return torch.cat(levels).contiguous().to(device), spans


def pattern_count() -> int:
    """How many patterns the atlas holds."""
    return sum(count for _, count in atlas("cpu")[1].values())


def sample(texels: Tensor, patterns: int, pattern: Tensor, u: Tensor, v: Tensor, footprint: Tensor) -> tuple[Tensor, Tensor]:
    """Look patterns up, fading what is finer than a pixel.

    Args:
        texels: of :func:`atlas`; patterns: how many it holds.
        pattern: int64, which pattern.
        u, v: where, in tiles (they repeat).
        footprint: the width of a pixel in texels of the finest level, at least 0.

    Returns:
        The weights of the second and third colour, same shape.
    """
    level = (footprint.clamp(min=1.0, max=float(SIZE)).view(torch.int32) >> 23).to(torch.int64) - 127  # floor of log2, exact
    size = SIZE >> level
    first = (4 * SIZE * SIZE - (4 * size * size)) // 3 * patterns  # texels of the levels before
    size_f = size.to(torch.float32)
    column, row = (u - u.floor()) * size_f - 0.5, (v - v.floor()) * size_f - 0.5
    left, top = column.floor(), row.floor()
    share_x, share_y = (column - left)[..., None], (row - top)[..., None]
    left, top, mask = left.to(torch.int64), top.to(torch.int64), size - 1
    base = first + pattern * (size * size)
    x0, x1 = left & mask, (left + 1) & mask
    y0, y1 = base + (top & mask) * size, base + ((top + 1) & mask) * size

    def fetch(index: Tensor) -> Tensor:
        return texels.index_select(0, index.reshape(-1)).reshape(*index.shape, 2)

    upper = fetch(y0 + x0)
    upper = upper + (fetch(y0 + x1) - upper) * share_x
    lower = fetch(y1 + x0)
    lower = lower + (fetch(y1 + x1) - lower) * share_x
    weights = upper + (lower - upper) * share_y
    return weights[..., 0], weights[..., 1]
