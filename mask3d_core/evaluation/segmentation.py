"""Semantic segmentation measured from one confusion matrix over the whole data set, with intervals over rooms.

mIoU of a data set is not the mean of its frames' mIoU: a class that a frame lacks has none there. So matrices are added
first and divided last. They are kept per sequence, which costs nothing and lets whole rooms be drawn again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mask3d_core.errors import ConfigError
from mask3d_core.evaluation.statistics import Estimate, resampled, resampled_difference
from mask3d_core.frames import IGNORE_LABEL
from mask3d_core.shapes import Int

METRICS = ("miou", "mean_accuracy", "pixel_accuracy")


def confusion(prediction: Int[Tensor, "b h w"], truth: Int[Tensor, "b h w"], classes: int) -> Int[Tensor, "b c c"]:
    """Confusion matrices, one per frame.

    Args:
        prediction: class ids, 0..classes - 1 wherever the truth is labelled.
        truth: class ids; ``IGNORE_LABEL`` is not counted.
        classes: how many.

    Returns:
        Long (b, classes, classes): [true class, predicted class], pixels.

    Raises:
        ConfigError: a label beyond the classes (another data set's, or a class map that does not fit).
    """
    is_counted = truth != IGNORE_LABEL
    for what, ids in (("labels", truth), ("predictions", prediction)):
        wrong = is_counted & ((ids < 0) | (ids >= classes))
        if bool(wrong.any()):
            raise ConfigError(f"{what} must be 0..{classes - 1} (or {IGNORE_LABEL} = ignored); got {int(ids[wrong][0])}: "
                              "the class map does not fit this data set")
    frame = torch.arange(len(truth), device=truth.device)[:, None, None].expand_as(truth)
    place = (frame * classes + truth.long()) * classes + prediction.long()
    counts = torch.bincount(place[is_counted], minlength=len(truth) * classes * classes)
    return counts.view(len(truth), classes, classes)


def scores_of(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """The usual numbers of confusion matrices.

    Args:
        matrix: (..., classes, classes), [true, predicted] pixels.

    Returns:
        miou, mean_accuracy: means over the classes that occur *in the truth*; pixel_accuracy; all (...,), NaN where
        nothing is labelled. iou, accuracy: (..., classes), NaN for classes that the truth lacks.
    """
    matrix = np.asarray(matrix, np.float64)
    right = np.diagonal(matrix, axis1=-2, axis2=-1)
    true, predicted = matrix.sum(-1), matrix.sum(-2)
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = np.where(true > 0, right / (true + predicted - right), np.nan)
        accuracy = np.where(true > 0, right / true, np.nan)
        present = (true > 0).sum(-1)
        found = {"miou": np.nansum(iou, axis=-1) / np.where(present, present, np.nan),
                 "mean_accuracy": np.nansum(accuracy, axis=-1) / np.where(present, present, np.nan),
                 "pixel_accuracy": right.sum(-1) / np.where(present, true.sum(-1), np.nan), "iou": iou, "accuracy": accuracy}
    return {name: np.asarray(value) for name, value in found.items()}


@dataclass
class SegmentationScores:
    """Confusion matrices added up sequence by sequence.

    Args:
        class_names: by class id.
        matrices: sequence to int64 (classes, classes).
    """

    class_names: Sequence[str]
    matrices: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, prediction: Int[Tensor, "b h w"], truth: Int[Tensor, "b h w"], sequences: Sequence[str]) -> None:
        """Count a batch; see :func:`confusion`."""
        for name, matrix in zip(sequences, confusion(prediction, truth, len(self.class_names)).cpu().numpy(), strict=True):
            self.matrices[name] = self.matrices.get(name, 0) + matrix

    @property
    def total(self) -> np.ndarray:
        """int64 (classes, classes): everything."""
        count = len(self.class_names)
        return sum(self.matrices.values(), np.zeros((count, count), np.int64))

    def scores(self) -> dict[str, float]:
        """mIoU, mean and pixel accuracy of the data set, 0..1; NaN where nothing is labelled."""
        found = scores_of(self.total)
        return {name: float(found[name]) for name in METRICS}

    def per_class(self) -> dict[str, float]:
        """IoU by class name; NaN where the truth lacks the class."""
        return dict(zip(self.class_names, scores_of(self.total)["iou"].tolist(), strict=True))

    def estimate(self, metric: str = "miou", level: float = 0.95, resamples: int = 2000, seed: int = 0) -> Estimate:
        """A score with its interval from drawing whole sequences again, matrices added before dividing."""
        stack = np.stack([self.matrices[name] for name in sorted(self.matrices)]) if self.matrices else self.total[None]
        return resampled(stack, lambda matrix: scores_of(matrix)[metric], level, resamples, seed)

    def difference(self, other: SegmentationScores, metric: str = "miou", level: float = 0.95, resamples: int = 2000,
                   seed: int = 0) -> Estimate:
        """This minus another answer's score on the same sequences, drawn again together.

        Raises:
            ConfigError: other sequences or classes.
        """
        if set(self.matrices) != set(other.matrices) or len(self.class_names) != len(other.class_names):
            raise ConfigError("both answers must be scored on the same sequences and classes")
        names = sorted(self.matrices)
        first, second = (np.stack([s.matrices[name] for name in names]) for s in (self, other))
        return resampled_difference(first, second, lambda matrix: scores_of(matrix)[metric], level, resamples, seed)

    def as_dict(self) -> dict:
        """Plain JSON values; what is not a number becomes None."""
        plain = lambda v: v if math.isfinite(v) else None  # noqa: E731
        return {**{k: plain(v) for k, v in self.scores().items()},
                "iou": {k: plain(v) for k, v in self.per_class().items()}, "sequences": len(self.matrices),
                "pixels": int(self.total.sum()), "interval": self.estimate().as_dict()}


def most_frequent(counts: Mapping[int, int] | np.ndarray) -> int:
    """The class that is most frequent in the training labels: the trivial answer."""
    values = np.asarray([counts[k] for k in sorted(counts)] if isinstance(counts, Mapping) else counts)
    return int(values.argmax())
