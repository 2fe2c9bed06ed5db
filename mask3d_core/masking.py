"""Which patches are hidden. One convention: ``is_masked`` is True where the encoder may not look.

Every mask comes from a *rank*: each patch has a place in one seeded permutation, and a ratio hides all patches but the
first few. So masks are nested (raising a ratio only adds hidden patches), are a function of (seed, frame id, epoch),
and a slider can redraw them without asking anyone.

A ratio counts the patches that can be shown at all: a depth patch without one valid pixel is never visible and never
counted. Holes (``is_valid``) and masks never mix.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mask3d_core.errors import ConfigError
from mask3d_core.randomness import random_bits, stream, uniform
from mask3d_core.shapes import Bool, Int

NEVER = 1 << 30  # rank of a patch that can never be shown


def patch_ranks(seed: int, frame_ids: Int[Tensor, "b"], epochs: Int[Tensor, "b"] | int, modality: str,
                grid: tuple[int, int], block: int = 1,
                is_showable: Bool[Tensor, "b n"] | None = None) -> Int[Tensor, "b n"]:
    """Each patch's place in the frame's permutation for one modality.

    Args:
        seed, frame_ids, epochs: the keys; nothing else enters.
        modality: "rgb" or "depth"; each has its own permutation.
        grid: (rows, columns) of patches.
        block: side of the square blocks, in patches, that are shown or hidden together; 1 = independent patches.
        is_showable: patches that hold something to show; the others get the rank ``NEVER``.

    Returns:
        int64 (b, rows * columns): 0 is shown first.
    """
    rows, columns = grid
    device = frame_ids.device
    if isinstance(epochs, int):
        epochs = torch.full_like(frame_ids, epochs)
    number = torch.arange(rows * columns, device=device)
    base = random_bits(seed, stream(f"mask-{modality}"), frame_ids, epochs)[:, None]
    bits = random_bits(base, number[None])
    if block > 1:
        corner = (number // columns) // block * columns + (number % columns) // block
        block_bits = random_bits(base, stream("block"), corner[None])
        order = torch.argsort(bits, dim=1, stable=True)  # within a block: the patches' own order
        order = order.gather(1, torch.argsort(block_bits.gather(1, order), dim=1, stable=True))
    else:
        order = torch.argsort(bits, dim=1, stable=True)
    if is_showable is not None:
        hidden_last = torch.argsort((~is_showable).gather(1, order).to(torch.uint8), dim=1, stable=True)
        order = order.gather(1, hidden_last)
    ranks = torch.empty_like(order).scatter_(1, order, number.expand_as(order))
    return ranks if is_showable is None else torch.where(is_showable, ranks, NEVER)


def visible_count(ratio: float, count: int) -> int:
    """How many of ``count`` patches a ratio leaves visible: round((1 - ratio) * count), at least 1 unless ratio is 1.

    Raises:
        ConfigError: ratio outside 0..1.
    """
    if not 0.0 <= ratio <= 1.0:
        raise ConfigError(f"a masking ratio must lie in 0..1 (the share hidden); got {ratio:g}")
    if ratio == 1.0 or count == 0:
        return 0
    return max(1, int((1.0 - ratio) * count + 0.5))


def mask_from_ranks(ranks: Int[Tensor, "b n"], ratio: float) -> Bool[Tensor, "b n"]:
    """Hide the share ``ratio`` of the showable patches.

    Returns:
        is_masked (b, n): True = hidden from the encoder. Patches with rank ``NEVER`` are always hidden.
    """
    visible_count(ratio, 1)  # checks the range
    count = (ranks < NEVER).sum(dim=1, keepdim=True)
    keep = ((1.0 - ratio) * count.to(torch.float64) + 0.5).floor().to(torch.int64)
    keep = keep.clamp(min=0 if ratio == 1.0 else 1)
    return ranks >= torch.minimum(keep, count)


def keep_ids(is_masked: Bool[Tensor, "b n"], count: int | None = None) -> tuple[Tensor, Tensor]:
    """The indices of the visible patches, in grid order, padded to one length.

    Args:
        is_masked: True = hidden.
        count: length of the answer; by default the largest number of visible patches (this asks the device).

    Returns:
        ids_keep: Long (b, count), visible patches first, then padding.
        is_padding: Bool (b, count), True where the entry is no visible patch and must not be attended to.

    Raises:
        ValueError: some row has more than ``count`` visible patches (checked on the CPU, not while compiling).
    """
    if count is None:
        count = int((~is_masked).sum(dim=1).max()) if is_masked.shape[0] else 0
    elif is_masked.device.type == "cpu" and not torch.compiler.is_compiling():  # elsewhere asking would wait
        found = int((~is_masked).sum(dim=1).max()) if is_masked.numel() else 0
        if found > count:
            raise ValueError(f"expected at most {count} visible patches per frame; got {found}")
    order = torch.argsort(is_masked.to(torch.uint8), dim=1, stable=True)[:, :count]
    return order, is_masked.gather(1, order)


def patches_with_valid(is_valid: Bool[Tensor, "b h w"], patch: int) -> Bool[Tensor, "b n"]:
    """Which patches hold at least one valid pixel, row by row of the grid."""
    b, height, width = is_valid.shape
    blocks = is_valid.reshape(b, height // patch, patch, width // patch, patch)
    return blocks.any(dim=4).any(dim=2).reshape(b, -1)


def to_pixels(is_patch: Bool[Tensor, "b n"], grid: tuple[int, int], patch: int) -> Bool[Tensor, "b h w"]:
    """A patch mask as a pixel mask."""
    b = is_patch.shape[0]
    blocks = is_patch.reshape(b, grid[0], 1, grid[1], 1).expand(b, grid[0], patch, grid[1], patch)
    return blocks.reshape(b, grid[0] * patch, grid[1] * patch)


@dataclass(frozen=True)
class MaskConfig:
    """How training hides patches.

    Args:
        ratios: the pairs (share of RGB patches hidden, share of depth patches hidden) that batches draw from.
            One pair is a fixed masking; 0.8/0.8 is ours (paper value not known).
        weights: how often each pair is drawn, relative; empty = equally often.
        block: side of the blocks hidden together, in patches; 1 = independent patches.
        seed: of the permutations.
    """

    ratios: tuple[tuple[float, float], ...] = ((0.8, 0.8),)
    weights: tuple[float, ...] = ()
    block: int = 1
    seed: int = 0

    def problems(self, inputs: tuple[str, ...] = ("rgb", "depth")) -> list[str]:
        """Everything that is wrong with this configuration for a model with these inputs."""
        found = []
        if not self.ratios:
            found.append("mask.ratios must hold at least one pair")
        for pair in self.ratios:
            if len(pair) != 2 or not all(0.0 <= r <= 1.0 for r in pair):
                found.append(f"mask.ratios: each pair must be two numbers in 0..1 (shares hidden); got {pair}")
            elif ("rgb" not in inputs or pair[0] == 1) and ("depth" not in inputs or pair[1] == 1):
                found.append(f"mask.ratios: {pair} leaves no visible token of any input {inputs}")
        if self.weights and (len(self.weights) != len(self.ratios) or min(self.weights) < 0 or sum(self.weights) <= 0):
            found.append(f"mask.weights must be {len(self.ratios)} numbers >= 0; got {self.weights}")
        if self.block < 1:
            found.append(f"mask.block must be at least 1; got {self.block}")
        return found

    def draw(self, step: int) -> tuple[float, float]:
        """The pair of ratios of one training step: a function of (seed, step), so shapes are known on the host."""
        weights = self.weights or (1.0,) * len(self.ratios)
        point = float(uniform(self.seed, stream("ratio"), step)) * sum(weights)
        for pair, weight in zip(self.ratios, weights, strict=True):
            point -= weight
            if point < 0:
                return pair
        return self.ratios[-1]


@dataclass(frozen=True)
class Masks:
    """The masks of one batch and how many patches of each modality can be visible.

    Args:
        rgb: Bool (b, n), True = hidden.
        depth: Bool (b, n), True = hidden (patches without a valid pixel are always hidden).
        rgb_count, depth_count: upper bounds of the visible patches per frame; they fix the shapes.
        depth_may_pad: False promises that every frame has exactly ``depth_count`` visible depth patches.
        rgb_may_pad: the same for RGB.
    """

    rgb: Tensor
    depth: Tensor
    rgb_count: int
    depth_count: int
    depth_may_pad: bool = True
    rgb_may_pad: bool = False

    @staticmethod
    def painted(rgb: Tensor, depth: Tensor, is_valid: Tensor, patch: int) -> Masks:
        """Masks given patch by patch (painted by hand); empty depth patches are hidden whatever was painted.

        Args:
            rgb, depth: Bool (b, n), True = hidden.
            is_valid: Bool (b, h, w).
            patch: patch size in pixels.
        """
        depth = depth | ~patches_with_valid(is_valid, patch)
        shown_rgb, shown_depth = (~rgb).sum(1), (~depth).sum(1)
        rgb_count, depth_count = int(shown_rgb.max()), int(shown_depth.max())
        return Masks(rgb, depth, rgb_count, depth_count,
                     bool((shown_depth != depth_count).any()), bool((shown_rgb != rgb_count).any()))

    @staticmethod
    def random(ratios: tuple[float, float], frame_ids: Tensor, epochs: Tensor | int, is_valid: Tensor, patch: int,
               seed: int = 0, block: int = 1, may_have_holes: bool = True) -> Masks:
        """Masks drawn from the ranks of (seed, frame id, epoch).

        Args:
            ratios: shares of RGB and of depth patches hidden, 0..1.
            frame_ids, epochs: Long (b,), the keys.
            is_valid: Bool (b, h, w); its size fixes the grid.
            may_have_holes: False promises that no patch is wholly empty; saves the padding.
        """
        grid = (is_valid.shape[1] // patch, is_valid.shape[2] // patch)
        count = grid[0] * grid[1]
        rgb = patch_ranks(seed, frame_ids, epochs, "rgb", grid, block)
        showable = patches_with_valid(is_valid, patch) if may_have_holes else None
        depth = patch_ranks(seed, frame_ids, epochs, "depth", grid, block, showable)
        return Masks(mask_from_ranks(rgb, ratios[0]), mask_from_ranks(depth, ratios[1]),
                     visible_count(ratios[0], count), visible_count(ratios[1], count), may_have_holes)
