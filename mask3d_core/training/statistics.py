"""What must be known of the training data before training: the depth's mean and spread, and its mean map."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mask3d_core.batches import Batch
from mask3d_core.errors import ConfigError
from mask3d_core.evaluation.opponents import MeanMap
from mask3d_core.models.config import DepthTarget
from mask3d_core.models.targets import focal_of, represent


@dataclass(frozen=True)
class DataStatistics:
    """Statistics of training depth, gathered batch by batch.

    Args:
        mean, std: of the represented canonical depth over valid pixels.
        mean_map: Float (h, w), mean canonical depth (metres at ``reference_focal``) per pixel; the opponent where no
            depth is visible.
        frames: how many frames were looked at.
    """

    mean: float
    std: float
    mean_map: Tensor
    frames: int


def gather_statistics(batches: list[Batch], target: DepthTarget) -> DataStatistics:
    """Statistics over the valid pixels of some training batches.

    Raises:
        ConfigError: not one valid pixel.
    """
    total = square = count = 0.0
    frames = 0
    for batch in batches:
        canonical = batch.depth * (target.reference_focal / focal_of(batch.intrinsics))[:, None, None]
        value = represent(canonical, target.representation)[batch.is_valid].double()
        total, square, count = total + value.sum(), square + value.square().sum(), count + value.numel()
        frames += len(batch)
    if count == 0:
        raise ConfigError("the training frames hold no valid depth at all; look at them with `mask3d doctor`")
    mean = float(total / count)
    std = max(float(square / count) - mean * mean, 1e-12) ** 0.5
    mean_map = MeanMap.fit(((b.depth, b.is_valid, b.intrinsics) for b in batches), target.reference_focal)
    return DataStatistics(mean, std, mean_map.values.cpu(), frames)
