"""How far predictions spread over masks that all hide a pixel, and whether that spread knows where the errors are.

The spread is a by-product of masking, not a posterior: see ``NOT_A_POSTERIOR``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mask3d_core.batches import Batch
from mask3d_core.errors import ConfigError, Mask3DError
from mask3d_core.evaluation.metrics import counted_pixels
from mask3d_core.masking import Masks, to_pixels
from mask3d_core.models.mask3d import Mask3D

NOT_A_POSTERIOR = ("The spread over masks is not a posterior: it says how much the answer depends on which patches were "
                   "seen. Where every mask misleads the model alike, the spread is small and the error is not.")
CHUNK = 4  # draws in one forward pass
STEPS = 50  # of a sparsification curve


@dataclass(frozen=True)
class MaskSpread:
    """Predictions of one frame under many masks, over the draws in which each pixel was hidden.

    Args:
        mean: float32 (h, w) metres; NaN for a pixel that no draw has hidden.
        spread: float32 (h, w) metres, standard deviation; NaN with fewer than two draws.
        draws: int64 (h, w), in how many draws a pixel was hidden.
        depth: float32 (h, w) metres, the truth. is_scored: bool (h, w): measured, within range, hidden at least twice.
        ratios: shares of RGB and depth hidden. count: draws in all.
    """

    mean: np.ndarray
    spread: np.ndarray
    draws: np.ndarray
    depth: np.ndarray
    is_scored: np.ndarray
    ratios: tuple[float, float]
    count: int

    @property
    def error(self) -> np.ndarray:
        """float32 (h, w) metres: how far the mean prediction is off, without sign; NaN where it is not scored."""
        return np.where(self.is_scored, np.abs(self.mean - self.depth), np.float32(np.nan))

    @property
    def correlation(self) -> float:
        """Spearman's rank correlation of spread and error over the scored pixels."""
        return rank_correlation(self.spread[self.is_scored], self.error[self.is_scored])

    def sparsification(self) -> Sparsification:
        """The curve of the scored pixels, in metres.

        Raises:
            Mask3DError: fewer than two pixels are scored.
        """
        return sparsification(self.spread[self.is_scored], self.error[self.is_scored])


@torch.inference_mode()
def measure_mask_spread(model: Mask3D, batch: Batch, ratios: tuple[float, float], draws: int = 16, seed: int = 0,
                        max_depth: float = 10.0, chunk: int = CHUNK,
                        progress: Callable[[int, int], None] | None = None,
                        painted: tuple[Mapping[int, bool], Mapping[int, bool]] = ({}, {})) -> MaskSpread:
    """Predict one frame under many masks.

    Args:
        model: in evaluation mode, with a depth target.
        batch: one frame.
        ratios: shares of RGB and depth patches hidden, 0..1, the same in every draw.
        draws: masks; the first is the one that a session shows at this seed.
        seed: of the masks.
        max_depth: truth beyond this many metres is not scored.
        chunk: draws in one forward pass.
        progress: called with (done, total); may raise to stop.
        painted: RGB and depth patches that are the same in every draw, patch to True = hidden; a patch that is never hidden
            has no spread.

    Raises:
        ConfigError: more than one frame, fewer than two draws, nothing visible or nothing hidden, no depth target, or
            painted patches that do not exist.
        Mask3DError: a prediction that is not finite.
    """
    config, problems = model.config, []
    if len(batch) != 1:
        problems.append(f"the spread is measured on one frame at a time; got {len(batch)}")
    if draws < 2:
        problems.append(f"draws must be at least 2; got {draws}")
    if "depth" not in config.targets:
        problems.append("this model predicts no depth (model.targets has no depth)")
    patches = config.grid[0] * config.grid[1]
    wrong = sorted(p for given in painted for p in given if not 0 <= p < patches)
    if wrong:
        problems.append(f"painted patches must be 0..{patches - 1}; got {wrong}")
    if "depth" in config.inputs and ratios[1] == 0 and not any(painted[1].values()):
        problems.append("no depth is hidden, so no mask hides a pixel; raise the share of depth hidden")
    if problems:
        raise ConfigError(problems)
    grid = (batch.depth.shape[1] // config.patch, batch.depth.shape[2] // config.patch)
    count = np.zeros(batch.depth.shape[1:], np.int64)
    mean, squares = np.zeros(count.shape), np.zeros(count.shape)
    for first in range(0, draws, chunk):
        number = min(chunk, draws - first)
        pictures = [tensor.expand(number, *tensor.shape[1:]) for tensor in (
            batch.color, batch.depth, batch.is_valid, batch.intrinsics)]
        epochs = batch.epochs + torch.arange(first, first + number, device=batch.epochs.device)
        masks = Masks.random(ratios, batch.frame_ids.expand(number), epochs, pictures[2], config.patch, seed)
        if any(painted):
            masks = _with_painted(masks, painted, pictures[2], config.patch)
        hidden = to_pixels(masks.depth, grid, config.patch)
        if "depth" not in config.inputs:
            hidden = torch.ones_like(hidden)
        found = model(*pictures, masks).depth
        if not torch.isfinite(found).all():
            raise Mask3DError("finite predictions", "others", "Look at the model: its weights may be broken.")
        for prediction, where in zip(found.double().cpu().numpy(), hidden.cpu().numpy(), strict=True):
            count += where  # Welford's way: no difference of large sums
            away = np.where(where, prediction - mean, 0.0)
            mean += away / np.maximum(count, 1)
            squares += away * np.where(where, prediction - mean, 0.0)
        if progress:
            progress(first + number, draws)
    spread = np.where(count > 1, np.sqrt(squares / np.maximum(count - 1, 1)), np.nan).astype(np.float32)
    everywhere = torch.ones_like(batch.is_valid)
    is_scored = counted_pixels(batch.depth, batch.is_valid, everywhere, max_depth)[0].cpu().numpy() & (count > 1)
    return MaskSpread(np.where(count > 0, mean, np.nan).astype(np.float32), spread, count, batch.depth[0].cpu().numpy(),
                      is_scored, ratios, draws)


def _with_painted(masks: Masks, painted: tuple[Mapping[int, bool], Mapping[int, bool]], is_valid: Tensor, patch: int) -> Masks:
    """The same patches shown or hidden by hand in every draw."""
    both = []
    for hidden, by_hand in zip((masks.rgb, masks.depth), painted, strict=True):
        hidden = hidden.clone()
        for place, is_hidden in by_hand.items():
            hidden[:, place] = is_hidden
        both.append(hidden)
    return Masks.painted(*both, is_valid, patch)


@dataclass(frozen=True)
class Sparsification:
    """Mean error of the pixels that remain as the most uncertain ones are left out (Ilg et al., ECCV 2018).

    Args:
        removed: float64 (n,), shares 0..1 left out, ascending from 0.
        by_spread, oracle, random: float64 (n,), mean error of the rest when the most uncertain, the truly worst, or any
            pixels are left out. Equally uncertain pixels are left out in any order: the mean over all orders is meant.
        ause: area between ``by_spread`` and ``oracle`` over the mean error: 0 = the spread orders like the error.
        ause_random: the same area for leaving out at random; a useful spread is well below it.
    """

    removed: np.ndarray
    by_spread: np.ndarray
    oracle: np.ndarray
    random: np.ndarray
    ause: float
    ause_random: float


def sparsification(uncertainty: np.ndarray, error: np.ndarray, steps: int = STEPS) -> Sparsification:
    """Sparsification curves and the area between them.

    Args:
        uncertainty: (pixels,), larger = left out earlier.
        error: (pixels,), not negative, in any unit.
        steps: points on the curve; the last leaves out the share 1 - 1 / steps.

    Raises:
        Mask3DError: lengths that differ, fewer than two pixels, numbers that are not finite, or a negative error.
    """
    uncertainty, error = np.asarray(uncertainty, np.float64), np.asarray(error, np.float64)
    if uncertainty.shape != error.shape or error.ndim != 1 or len(error) < 2 or steps < 2:
        raise Mask3DError("uncertainty and error of the same two or more pixels, at least 2 steps",
                          f"{uncertainty.shape}, {error.shape}, {steps} steps", "Pass flat arrays over the scored pixels.")
    if not (np.isfinite(uncertainty).all() and np.isfinite(error).all()) or error.min() < 0:
        raise Mask3DError("finite numbers, no negative error", "others", "Leave out pixels that are not scored.")
    count = len(error)
    kept = count - np.floor(np.arange(steps) / steps * count).astype(np.int64)  # at least one remains

    def curve(order_by: np.ndarray) -> np.ndarray:
        _, group, sizes = np.unique(order_by, return_inverse=True, return_counts=True)
        tied = (np.bincount(group, weights=error) / sizes)[group]
        return np.cumsum(tied[np.argsort(order_by, kind="stable")])[kept - 1] / kept

    removed, by_spread, oracle = 1.0 - kept / count, curve(uncertainty), curve(error)
    random = np.full(steps, error.mean())
    scale = error.mean() or 1.0
    areas = [float(np.trapezoid((values - oracle) / scale, removed)) for values in (by_spread, random)]
    return Sparsification(removed, by_spread, oracle, random, *areas)


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's: the correlation of the ranks, ties sharing theirs. NaN for fewer than three or for constant numbers."""
    first, second = np.asarray(first).ravel(), np.asarray(second).ravel()
    if len(first) != len(second):
        raise Mask3DError(f"two lists of {len(first)}", f"{len(second)} in the second", "Pass one number each.")
    if len(first) < 3:
        return float("nan")

    def ranks(values: np.ndarray) -> np.ndarray:
        _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
        return (np.cumsum(counts) - (counts - 1) / 2)[place]

    a, b = ranks(first), ranks(second)
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else float("nan")


__all__ = ["CHUNK", "NOT_A_POSTERIOR", "MaskSpread", "Sparsification", "measure_mask_spread", "rank_correlation",
           "sparsification"]
