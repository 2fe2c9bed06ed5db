"""What trivial opponents score on the fixed frames that a run predicts at every evaluation, and what the run scores there.

Frames and masks of the previews are the same at every step, so the opponents are constants of the run: worked out once from
the first preview's arrays. All of it is computed from files alone, in whatever thread asks.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mask3d_core.evaluation import OPPONENTS, depth_metrics
from mask3d_core.masking import to_pixels

RIVALS = {"nearest": "nearest pixel", "linear_inverse": "spline in 1/depth"}


@dataclass(frozen=True)
class FixedScores:
    """AbsRel over the hidden measured pixels of the fixed frames, each frame counting once (as the run's own evaluation).

    Args:
        frames: how many fixed frames there are.
        rivals: name of an opponent to its score; empty where no depth is visible.
        run: (step, the run's own score there), oldest first.
    """

    frames: int
    rivals: dict[str, float]
    run: tuple[tuple[int, float], ...]


class FixedScorer:
    """Reads each preview file once. One call at a time."""

    def __init__(self):
        self._rivals: tuple[tuple, dict[str, float]] | None = None
        self._scores: dict[tuple, float | None] = {}

    def score(self, previews: list[tuple[int, Path]]) -> FixedScores | None:
        """The scores of all previews.

        Args:
            previews: (step, ``step-*.npz``), oldest first.

        Returns:
            None while there is none with a depth prediction.
        """
        run, frames = [], 0
        for step, path in previews:
            try:
                key = str(path), path.stat().st_mtime_ns
                if key not in self._scores or self._rivals is None:
                    with np.load(path) as arrays:
                        self._read(key, arrays)
            except (OSError, KeyError, ValueError, zipfile.BadZipFile):  # taken away or half written: the others remain
                continue
            if self._scores[key] is not None:
                run.append((step, self._scores[key]))
        if self._rivals is None or not run:
            return None
        frames, rivals = self._rivals[0][0], self._rivals[1]
        return FixedScores(frames, dict(rivals), tuple(run))

    def _read(self, key: tuple, arrays) -> None:
        if "prediction" not in arrays:  # a control that predicts no depth
            self._scores[key] = None
            return
        depth, is_valid = torch.from_numpy(arrays["depth"].astype(np.float32)), torch.from_numpy(arrays["is_valid"])
        masks = {name: torch.from_numpy(arrays[f"is_masked_{name}"]) for name in ("rgb", "depth")}
        grid, side = _grid_of(masks["depth"].shape[1], depth.shape[1:])
        hidden = is_valid & to_pixels(masks["depth"], grid, side)
        prediction = torch.from_numpy(arrays["prediction"].astype(np.float32))
        self._scores[key] = _mean_abs_rel(prediction, depth, hidden)
        fixed = (len(depth), arrays["is_masked_depth"].tobytes())
        if self._rivals is not None and self._rivals[0] == fixed:
            return
        known = is_valid & ~hidden
        rivals = {}
        if known.flatten(1).any(dim=1).all():
            color, shown = torch.from_numpy(arrays["color"].astype(np.float32) / 255), ~to_pixels(masks["rgb"], grid, side)
            for name in RIVALS:
                score = _mean_abs_rel(OPPONENTS[name](depth, known, color, shown), depth, hidden)
                if score is not None:
                    rivals[name] = score
        self._rivals = fixed, rivals


def _mean_abs_rel(prediction: torch.Tensor, depth: torch.Tensor, counted: torch.Tensor) -> float | None:
    """Mean over the frames that have a counted pixel; None where none has."""
    score = float(depth_metrics(prediction, depth, counted)["abs_rel"].nanmean())
    return score if np.isfinite(score) else None


def _grid_of(count: int, size: tuple[int, int]) -> tuple[tuple[int, int], int]:
    """((rows, columns), side) of ``count`` square patches over a picture of ``size`` (height, width)."""
    side = round((size[0] * size[1] / count) ** 0.5)
    return (size[0] // side, size[1] // side), side


__all__ = ["RIVALS", "FixedScorer", "FixedScores"]
