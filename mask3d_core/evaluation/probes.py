"""Linear probes of frozen encoders, in closed form: how much depth can be read off patch features by one matrix.

A ridge regression from standardised features to log depth, its strength chosen on validation frames from one grid for
everybody, scored in metres on frames that neither fitting nor choosing has seen. The trivial opponents stand in every
table: mean depth, position alone, the patch's own pixels with their position, and an untrained encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from mask3d_core.batches import Batch
from mask3d_core.errors import ConfigError
from mask3d_core.evaluation.features import FeatureFunction, raw_patches
from mask3d_core.evaluation.metrics import depth_metrics
from mask3d_core.evaluation.neighbours import cell_mean
from mask3d_core.evaluation.ridge import LinearMap, RidgeSums
from mask3d_core.evaluation.statistics import Estimate, interval, paired_interval
from mask3d_core.models.patches import sincos_positions
from mask3d_core.shapes import Float
from mask3d_core.splits import BY_TIME, ONE_SPLIT, SPLITS, TEST, TRAIN, UNUSED, VAL, assign_splits

MEAN, POSITION, PIXELS, UNTRAINED = "mean depth", "position alone", "pixels + position", "untrained encoder"
OPPONENTS = (MEAN, POSITION, PIXELS, UNTRAINED)
POSITION_WIDTH = 64  # of the sine-cosine code of a patch's place
METRICS = ("abs_rel", "rmse", "mae", "delta1")
ONE_RECORDING = "frames of one recording resampled: too narrow, since neighbours are near copies"


@dataclass(frozen=True)
class ProbeConfig:
    """How depth is probed.

    Args:
        cells: each patch predicts cells x cells depths (means over equal parts of it), scored at every pixel.
        strengths: of the ridge, relative to standardised features; the same grid for every encoder.
        max_depth: truth beyond this many metres is neither fitted nor scored.
        reference_focal: depth is made camera-independent (times this over the camera's fx) before it is fitted.
        batch_size: frames at a time.
    """

    cells: int = 4
    strengths: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1000.0)
    max_depth: float = 10.0
    reference_focal: float = 260.0
    batch_size: int = 8

    def __post_init__(self) -> None:
        problems = [f"{name} must be positive; got {getattr(self, name)}" for name in (
            "cells", "max_depth", "reference_focal", "batch_size") if getattr(self, name) <= 0]
        if not self.strengths or min(self.strengths) <= 0 or list(self.strengths) != sorted(set(self.strengths)):
            problems.append(f"strengths must be positive and rising; got {self.strengths}")
        if problems:
            raise ConfigError(problems, "ProbeConfig")


@dataclass(frozen=True)
class ProbeFrames:
    """Frames with their split. Checked: no sequence lies in two splits, unless time blocks with gaps part them.

    Args:
        read: frame numbers, int (k,), to a :class:`Batch` in that order.
        split: uint8 (n,), as ``splits.SPLITS`` numbers them; 255 is left out.
        sequences: the sequence of each frame.
        words: what the frames are and how they were split, for captions.
        is_by_time: blocks of time of the same recordings, with unused frames between them.

    Raises:
        ConfigError: an empty part, or frames of one recording on both sides of a cut.
    """

    read: Callable[[np.ndarray], Batch]
    split: np.ndarray
    sequences: tuple[str, ...]
    words: str = ""
    is_by_time: bool = False

    def __post_init__(self) -> None:
        problems = [f"no frame in the {name} part" for name, k in SPLITS.items() if not (self.split == k).any()]
        if len(self.sequences) != len(self.split):
            problems.append(f"{len(self.split)} frames but {len(self.sequences)} sequence names")
        elif self.is_by_time:
            touching = [i for i in range(1, len(self.split)) if self.sequences[i] == self.sequences[i - 1]
                        and self.split[i] != self.split[i - 1] and UNUSED not in (self.split[i], self.split[i - 1])]
            if touching:
                problems.append(f"frames {touching[0] - 1} and {touching[0]} are neighbours in different parts; leave a gap")
        else:
            parts: dict[str, set[int]] = {}
            for name, k in zip(self.sequences, self.split.tolist()):
                if k != UNUSED:
                    parts.setdefault(name, set()).add(k)
            shared = sorted(name for name, found in parts.items() if len(found) > 1)
            if shared:
                problems.append(f"{len(shared)} sequence(s) lie in several parts, {shared[0]!r} for one")
        if problems:
            raise ConfigError(problems, "frames for a probe")

    @staticmethod
    def of(read: Callable[[np.ndarray], Batch], sequences: Sequence[str], words: str = "", val_share: float = 0.2,
           test_share: float = 0.3) -> ProbeFrames:
        """Frames split by sequence, or a single recording by time (``splits.assign_splits``).

        Raises:
            ConfigError: too few frames or sequences for three parts.
        """
        names = list(dict.fromkeys(sequences))
        split, kind, rule = assign_splits(np.array([names.index(s) for s in sequences], np.int64), names, val_share, test_share)
        if kind == ONE_SPLIT or len(names) == 2:
            raise ConfigError(f"{len(sequences)} frames of {len(names)} sequence(s) cannot be parted into train, val and "
                              "test; give more frames, or three recordings")
        return ProbeFrames(read, split, tuple(sequences), f"{words}{', ' if words else ''}{rule}", kind == BY_TIME)

    def numbers(self, part: int) -> np.ndarray:
        """The frames of a part, ascending."""
        return np.flatnonzero(self.split == part)


@dataclass(frozen=True)
class ProbeScores:
    """One encoder's probe.

    Args:
        name: of the encoder.
        frames: metric to float64 (test frames,), NaN where a frame has no measured pixel.
        strength: the chosen one. is_at_edge: it is the grid's first or last.
        width: of its features.
    """

    name: str
    frames: dict[str, np.ndarray] = field(repr=False)
    strength: float = 0.0
    is_at_edge: bool = False
    width: int = 0


@dataclass(frozen=True)
class ProbeResult:
    """All encoders and opponents on the same frames.

    Args:
        scores: by name, opponents first.
        sequences: of each test frame.
        words: what the frames are, how they were split, how many each part holds.
    """

    scores: dict[str, ProbeScores]
    sequences: tuple[str, ...]
    words: str

    @property
    def is_one_recording(self) -> bool:
        """Whether all test frames come from one sequence: then frames are resampled, and intervals say so."""
        return len(set(self.sequences)) == 1

    def _units(self) -> list[str]:
        return [str(i) for i in range(len(self.sequences))] if self.is_one_recording else list(self.sequences)

    def _said(self, estimate: Estimate) -> Estimate:
        return replace(estimate, words=ONE_RECORDING) if self.is_one_recording and estimate.low is not None else estimate

    def estimate(self, name: str, metric: str = "abs_rel") -> Estimate:
        """The mean over test frames with its interval over sequences (over frames where there is one recording)."""
        return self._said(interval(self.scores[name].frames[metric], self._units()))

    def difference(self, first: str, second: str, metric: str = "abs_rel") -> Estimate:
        """Mean of first minus second over the same frames, with its paired interval."""
        a, b = (self.scores[name].frames[metric] for name in (first, second))
        return self._said(paired_interval(a, b, self._units()))


def opponent_functions(patch: int) -> dict[str, FeatureFunction]:
    """The opponents that need no encoder, as feature functions; "mean depth" has no feature at all."""
    def place(color: Tensor) -> Tensor:
        code = sincos_positions((color.shape[-2] // patch, color.shape[-1] // patch), POSITION_WIDTH)
        return code.to(color.device).expand(len(color), -1, -1)

    return {MEAN: lambda color: place(color)[..., :0], POSITION: place,
            PIXELS: lambda color: torch.cat([raw_patches(color, patch), place(color)], dim=-1)}


@torch.inference_mode()
def probe_depth(encoders: Mapping[str, FeatureFunction], untrained: FeatureFunction, frames: ProbeFrames, patch: int,
                config: ProbeConfig = ProbeConfig(), progress: Callable[[int, int], None] | None = None) -> ProbeResult:
    """Probe frozen encoders for depth, beside every opponent.

    Args:
        encoders: name to feature function (:func:`features.feature_function`).
        untrained: the random opponent: the step-0 twin of a checkpoint, or a fresh network of the same shape.
        frames: what is fitted, chosen and tested on.
        patch: side of a patch in pixels, for the opponents that read pixels.
        config: protocol.
        progress: called with (done, total) steps, one per frame and encoder.

    Returns:
        Scores of the opponents, then of the encoders.

    Raises:
        ConfigError: an encoder named as an opponent, a grid that does not fit, or no measured patch to fit on.
    """
    clash = sorted(set(encoders) & set(OPPONENTS))
    if clash:
        raise ConfigError(f"encoder names {clash} are opponents' names; choose others")
    everybody = {**opponent_functions(patch), UNTRAINED: untrained, **encoders}
    parts = {k: frames.numbers(k) for k in (TRAIN, VAL, TEST)}
    total, done = sum(len(n) for n in parts.values()) * len(everybody), 0
    sums = {name: RidgeSums() for name in everybody}
    maps: dict[str, list[LinearMap]] = {}
    widths: dict[str, int] = {}
    scores: dict[str, dict[str, list[Tensor]]] = {name: {m: [] for m in METRICS} for name in everybody}
    for part, numbers in parts.items():
        chosen_on: dict[str, list[Tensor]] = {name: [] for name in everybody}
        for start in range(0, len(numbers), config.batch_size):
            batch = frames.read(numbers[start:start + config.batch_size])
            task = _Task(batch, patch, config)
            for name, function in everybody.items():
                features = function(batch.color).detach().cpu()
                widths[name] = features.shape[-1]
                if features.shape[1] != task.grid[0] * task.grid[1]:
                    raise ConfigError(f"{name} gives {features.shape[1]} patches; the probe's grid has {task.grid}")
                if part == TRAIN:
                    sums[name].add(features.flatten(0, 1)[task.is_fitted], task.target[task.is_fitted])
                elif part == VAL:
                    chosen_on[name].append(torch.stack([task.score(m, features)["abs_rel"] for m in maps[name]]))
                else:
                    for metric, values in task.score(maps[name][0], features).items():
                        scores[name][metric].append(values)
                done += len(batch)
                if progress:
                    progress(done, total)
        if part == TRAIN:
            maps = {name: s.solve(config.strengths) for name, s in sums.items()}
        elif part == VAL:
            maps = {name: [maps[name][_best(torch.cat(chosen_on[name], dim=1))]] for name in everybody}
    edges = (config.strengths[0], config.strengths[-1])
    found = {name: ProbeScores(name, {m: torch.cat(v).double().numpy() for m, v in by_metric.items()}, maps[name][0].strength,
                               widths[name] > 0 and maps[name][0].strength in edges, widths[name])
             for name, by_metric in scores.items()}
    words = (f"{frames.words}{'; ' if frames.words else ''}{len(parts[TRAIN])} frames to fit, {len(parts[VAL])} to choose "
             f"the ridge's strength, {len(parts[TEST])} to test")
    return ProbeResult(found, tuple(frames.sequences[i] for i in parts[TEST]), words)


def _best(errors: Float[Tensor, "s f"]) -> int:
    """The strength with the lowest mean error over the validation frames that have one."""
    means = torch.nanmean(errors, dim=1)
    if not means.isfinite().any():
        raise ConfigError("no validation frame has measured depth, so the ridge's strength cannot be chosen")
    return int(torch.where(means.isfinite(), means, torch.inf).argmin())


class _Task:
    """Targets of one batch, and how a prediction of them is scored in metres."""

    def __init__(self, batch: Batch, patch: int, config: ProbeConfig):
        self.batch, self.max_depth, height, width = batch, config.max_depth, *batch.depth.shape[1:]
        self.grid, self.cells = (height // patch, width // patch), config.cells
        self.scale = (config.reference_focal / batch.intrinsics[:, 0])[:, None, None]
        self.is_counted = batch.is_valid & (batch.depth <= config.max_depth)
        logarithm = (batch.depth * self.scale).clamp(min=1e-3).log()
        fine, share = cell_mean(logarithm, self.is_counted, (self.grid[0] * self.cells, self.grid[1] * self.cells))
        coarse, patch_share = cell_mean(logarithm, self.is_counted, self.grid)
        around = coarse.repeat_interleave(self.cells, 1).repeat_interleave(self.cells, 2)
        fine = torch.where(share > 0, fine, around)  # an empty cell of a measured patch: fitted to the patch's mean
        self.target = self._fold(fine)
        self.is_fitted = patch_share.flatten() >= 0.25

    def _fold(self, picture: Tensor) -> Tensor:
        rows, columns, k = *self.grid, self.cells
        return picture.reshape(-1, rows, k, columns, k).permute(0, 1, 3, 2, 4).reshape(-1, k * k)

    def score(self, answer: LinearMap, features: Tensor) -> dict[str, Tensor]:
        """Errors in metres per frame, over all measured pixels."""
        rows, columns, k = *self.grid, self.cells
        value = answer(features.flatten(0, 1)).float().reshape(-1, rows, columns, k, k).permute(0, 1, 3, 2, 4)
        value = value.reshape(-1, 1, rows * k, columns * k)
        # a linear map in the logarithm extrapolates without bounds: nobody's answer goes beyond twice the scored range
        value = torch.nn.functional.interpolate(value, self.batch.depth.shape[1:], mode="nearest")[:, 0]
        metres = (value.clamp(max=10.0).exp() / self.scale).clamp(max=2 * self.max_depth)
        found = depth_metrics(metres, self.batch.depth, self.is_counted)
        return {m: found[m] for m in METRICS}
