"""Nearest patches across pictures, and whether they agree in depth, surface normal and label."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mask3d_core.batches import Batch
from mask3d_core.errors import ConfigError
from mask3d_core.frames import IGNORE_LABEL
from mask3d_core.geometry import normals_from_depth
from mask3d_core.shapes import Bool, Float, Int

LEAST_MEASURED = 0.5  # share of a patch's pixels that must be measured, or labelled, before it has a depth, or a label
SAME_DEPTH = 1.1  # two depths agree within this factor
SAME_NORMAL = 15.0  # two normals agree within this many degrees
_CHUNK = 8_000_000  # similarities that are held at once


def nearest_patches(query: Float[Tensor, "q d"], keys: Float[Tensor, "m d"], count: int, query_picture: Int[Tensor, "q"],
                    key_picture: Int[Tensor, "m"]) -> tuple[Float[Tensor, "q k"], Int[Tensor, "q k"]]:
    """For each query the keys of *other* pictures with the highest cosine.

    Args:
        query, keys: features; subtract one common mean from both first, or all cosines are near 1.
        count: how many.
        query_picture, key_picture: number of the picture each comes from; keys of the query's own are left out.

    Returns:
        similarity -1..1 and key number, both (q, count), the nearest first; equal ones in the order of the keys.

    Raises:
        ConfigError: a query has fewer than ``count`` keys in other pictures.
    """
    fewest = min((int((key_picture != p).sum()) for p in query_picture.unique()), default=count)
    if count < 1 or fewest < count:
        raise ConfigError(f"nearest patches needs at least {count} patches in other frames; there are {fewest}")
    keys = F.normalize(keys, dim=1)
    step = max(1, _CHUNK // len(keys))
    similarities, places = [], []
    for start in range(0, len(query), step):
        part = F.normalize(query[start:start + step], dim=1) @ keys.T
        part[query_picture[start:start + step, None] == key_picture[None]] = -torch.inf
        value, place = part.topk(count, dim=1)
        similarities.append(value)
        places.append(place)
    return torch.cat(similarities), torch.cat(places)


@dataclass(frozen=True)
class PatchTruth:
    """What is known of each patch, over all pictures in a row: n = pictures x patches.

    Args:
        depth: Float (n,) metres, the mean; NaN where less than half was measured.
        normal: Float (n, 3), unit length, the mean; NaN where fewer than half of the pixels have one.
        label: Long (n,), the most frequent class, or -1; None where the frames have no labels.
    """

    depth: Tensor
    normal: Tensor
    label: Tensor | None


def cell_mean(value: Float[Tensor, "b h w"], where: Bool[Tensor, "b h w"], cells: tuple[int, int]
              ) -> tuple[Float[Tensor, "b r c"], Float[Tensor, "b r c"]]:
    """Mean over the chosen pixels of each cell of a grid, 0 where there is none, and the share of pixels chosen.

    Args:
        cells: (rows, columns); need not divide the picture.
    """
    share = F.adaptive_avg_pool2d(where.float()[:, None], cells)[:, 0]
    total = F.adaptive_avg_pool2d(torch.where(where, value, 0.0)[:, None], cells)[:, 0]
    return total / share.clamp(min=1e-9), share


def patch_truth(batch: Batch, grid: tuple[int, int]) -> PatchTruth:
    """Mean depth, mean normal and most frequent label of each patch."""
    depth, share = cell_mean(batch.depth, batch.is_valid, grid)
    depth = torch.where(share >= LEAST_MEASURED, depth, torch.nan)
    normals, is_defined = normals_from_depth(batch.depth, batch.is_valid, batch.intrinsics)
    parts = [cell_mean(normals[..., axis], is_defined, grid) for axis in range(3)]
    normal = F.normalize(torch.stack([mean for mean, _ in parts], dim=-1), dim=-1)
    normal = torch.where((parts[0][1] >= LEAST_MEASURED)[..., None], normal, torch.nan)
    label = None
    if batch.semantic is not None:
        known = [k for k in batch.semantic.unique().tolist() if k != IGNORE_LABEL]
        if known:
            shares = torch.stack([cell_mean(torch.ones_like(batch.depth), batch.semantic == k, grid)[1] for k in known])
            best, which = shares.max(dim=0)
            label = torch.where(best >= LEAST_MEASURED, torch.tensor(known)[which], -1).flatten()
    return PatchTruth(depth.flatten(), normal.flatten(0, 2), label)


def agreement(truth: PatchTruth, query: Int[Tensor, "q"], neighbours: Int[Tensor, "q k"]) -> dict[str, float]:
    """The share of neighbours that agree with their query, over the pairs where both are known.

    Args:
        truth: of all patches. query: numbers of patches. neighbours: numbers of their neighbours.

    Returns:
        "depth" (within a factor of 1.1), "normal" (within 15 degrees), "label" (the same class); what is known of no
        pair is left out.
    """
    found = {}
    first, second = truth.depth[query][:, None], truth.depth[neighbours]
    ratio = torch.maximum(first / second, second / first)
    found["depth"] = _share(ratio <= SAME_DEPTH, ratio.isfinite())
    cosine = (truth.normal[query][:, None] * truth.normal[neighbours]).sum(dim=-1)
    found["normal"] = _share(cosine >= math.cos(math.radians(SAME_NORMAL)), cosine.isfinite())
    if truth.label is not None:
        mine, other = truth.label[query][:, None], truth.label[neighbours]
        found["label"] = _share(mine == other, (mine >= 0) & (other >= 0))
    return {name: share for name, share in found.items() if not math.isnan(share)}


def _share(agrees: Tensor, is_counted: Tensor) -> float:
    count = int(is_counted.sum())
    return float((agrees & is_counted).sum()) / count if count else math.nan


def random_neighbours(query_picture: Int[Tensor, "q"], key_picture: Int[Tensor, "m"], count: int, seed: int = 0
                      ) -> Int[Tensor, "q k"]:
    """Patches of other pictures drawn at random: what agreement is worth nothing."""
    score = torch.rand(len(query_picture), len(key_picture), generator=torch.Generator().manual_seed(seed))
    score[query_picture[:, None] == key_picture[None].cpu()] = -1.0
    return score.topk(count, dim=1).indices


def same_place(query: Int[Tensor, "q"], neighbours: Int[Tensor, "q k"], grid: tuple[int, int]) -> float:
    """Share of neighbours at most one patch away from the query's own place in the picture: does it find the place, or
    what is there?"""
    count = grid[0] * grid[1]
    rows, columns = (query % count // grid[1])[:, None], (query % grid[1])[:, None]
    near = ((neighbours % count // grid[1] - rows).abs() <= 1) & ((neighbours % grid[1] - columns).abs() <= 1)
    return float(near.float().mean())
