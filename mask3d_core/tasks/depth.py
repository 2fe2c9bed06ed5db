"""Monocular depth: RGB in, metres out. No depth is fed and no scale is aligned."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mask3d_core.batches import Batch
from mask3d_core.evaluation.metrics import PREDICTION_FLOOR, depth_metrics
from mask3d_core.losses import frame_mean
from mask3d_core.models.dense import DenseModel
from mask3d_core.shapes import Bool, Float
from mask3d_core.store import Store
from mask3d_core.tasks import LossSum
from mask3d_core.training.config import to_dict
from mask3d_core.training.finetune_config import DepthConfig, FinetuneConfig
from mask3d_core.training.held_out import HeldOut, marked
from mask3d_core.training.schedule import layer_decay

METRICS = ("abs_rel", "rmse", "delta1", "delta2", "delta3")
NYU_SIZE = (480, 640)
EIGEN = (45 / 480, 471 / 480, 41 / 640, 601 / 640)  # top, bottom, left, right of the usual crop of 480 x 640 frames

Edges = tuple[float, float, float, float]


def crop_of(config: DepthConfig, store: Store) -> str:
    """"none" or "eigen": what the configuration's crop means for the frames of a store."""
    return config.crop if config.crop != "auto" else "eigen" if store.first_source.get("source") == "nyuv2" else "none"


def shown_part(frames: HeldOut) -> Edges:
    """Top, bottom, left and right edge of what is scored, as shares of the original picture.

    Of NYUv2 the border that its reader trimmed and the crop to the store's aspect are undone; of any other source the stored
    frame counts as the original.
    """
    source, (top, bottom, left, right) = frames.store.first_source, frames.window
    if source.get("source") != "nyuv2":
        return top, bottom, left, right
    border, stored = int(source.get("border", 0)), (frames.store.header.height, frames.store.header.width)
    inner = [side - 2 * border for side in NYU_SIZE]
    scale = max(new / old for new, old in zip(stored, inner, strict=True))  # as RGBDFrame.fit
    edges: list[float] = []
    for side, old, new, shown in zip(NYU_SIZE, inner, stored, ((top, bottom), (left, right)), strict=True):
        fitted = max(new, round(old * scale))
        edges += [(border + ((fitted - new) // 2 + share * new) * old / fitted) / side for share in shown]
    return edges[0], edges[1], edges[2], edges[3]


def eigen_box(part: Edges, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """First row, row after the last, first column, column after the last whose centres lie inside the Eigen crop.

    Args:
        part: of the original picture that is shown, as :func:`shown_part` gives it.
        size: (height, width) at which it is shown.
    """
    place = lambda share, low, high, side: min(max(math.ceil((share - low) / (high - low) * side - 0.5 - 1e-9), 0), side)  # noqa: E731
    return (place(EIGEN[0], *part[:2], size[0]), place(EIGEN[1], *part[:2], size[0]),
            place(EIGEN[2], *part[2:], size[1]), place(EIGEN[3], *part[2:], size[1]))


def scored_pixels(config: DepthConfig, batch: Batch, box: tuple[int, int, int, int] | None = None) -> Bool[Tensor, "b h w"]:
    """Measured pixels within the range, and inside a box (as :func:`eigen_box` gives it) where there is one."""
    counted = batch.is_valid & (batch.depth <= config.max_depth)
    if box is None:
        return counted
    top, bottom, left, right = box
    inside = torch.zeros_like(counted)
    inside[:, top:bottom, left:right] = True
    return counted & inside


def scored_metres(config: DepthConfig, prediction: Float[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
    """The prediction brought into the range, where the configuration says so; what is not finite stays infinitely wrong."""
    if not config.clamp:
        return prediction
    return torch.where(prediction.isfinite(), prediction.clamp(PREDICTION_FLOOR, config.max_depth), prediction)


def depth_loss(config: DepthConfig, prediction: Float[Tensor, "b h w"], depth: Float[Tensor, "b h w"],
               is_counted: Bool[Tensor, "b h w"]) -> LossSum:
    """The loss on metres, mean over each frame's counted pixels, summed over the frames that have any.

    "silog" is sqrt(mean d^2 - balance * (mean d)^2) with d the difference of logarithms (Eigen et al. 2014).
    """
    difference = torch.where(is_counted, prediction.clamp(min=1e-3).log() - depth.clamp(min=1e-3).log(), 0.0)
    here = is_counted.flatten(1).any(dim=1)
    size = frame_mean(difference.abs(), is_counted)
    per_frame = size
    if config.loss == "silog":
        mean = frame_mean(difference, is_counted)
        per_frame = (frame_mean(difference.square(), is_counted) - config.balance * mean.square()).clamp(min=1e-8).sqrt()
    return LossSum(torch.where(here, per_frame, 0.0).sum(), here.sum().float(), {"log_error": size.detach().sum()})


def score_depth(predict: Callable[[Batch], Tensor], frames: HeldOut, config: DepthConfig
                ) -> tuple[dict[str, np.ndarray], list[str]]:
    """Errors of every frame, streamed.

    Args:
        predict: from a batch to metres (b, h, w).
        frames: what is scored.
        config: range, clamp and crop.

    Returns:
        Metric to float64 (k,), NaN where a frame has nothing to score; and the sequence of each frame.
    """
    values: dict[str, list[Tensor]] = {name: [] for name in METRICS}
    names: list[str] = []
    box = eigen_box(shown_part(frames), frames.size) if crop_of(config, frames.store) == "eigen" else None
    for batch, sequences in frames:
        found = depth_metrics(scored_metres(config, predict(batch)), batch.depth, scored_pixels(config, batch, box))
        for name in METRICS:
            values[name].append(found[name])
        names += sequences
    return {name: torch.cat(parts).double().cpu().numpy() for name, parts in values.items()}, names


class Depth:
    """The task the engine trains.

    Args:
        config: the whole run.
        model: one output, with its depth statistics set.
        validation: frames of the periodic evaluation, or None.
        data: what the checkpoint's record says about the data.
        mean_map: Float (h, w), the training data's mean camera-independent depth, the trivial answer; travels along.
    """

    name = "depth"

    def __init__(self, config: FinetuneConfig, model: DenseModel, validation: HeldOut | None, data: dict[str, Any],
                 mean_map: Tensor | None = None):
        self.config, self.model, self.validation, self.data, self.mean_map = config, model, validation, data, mean_map
        self.shown = validation  # the fixed frames of previews
        self.selection = ("abs_rel", False) if config.select == "best" else None
        self.layer_scale = layer_decay(config.layer_decay, len(model.encoder.blocks))

    def _metres(self, model: nn.Module, batch: Batch) -> Tensor:
        return self.model.metres(model(batch.color), batch.intrinsics)

    def loss(self, model: nn.Module, batch: Batch, step: int) -> LossSum:
        """The loss over measured pixels within the range."""
        counted = batch.is_valid & (batch.depth <= self.config.depth.max_depth)
        return depth_loss(self.config.depth, self._metres(model, batch), batch.depth, counted)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """AbsRel, RMSE (m) and the deltas, mean over validation frames."""
        if self.validation is None:
            return {}
        values, _ = score_depth(lambda batch: self._metres(model, batch), self.validation, self.config.depth)
        return {name: float(np.nanmean(v)) for name, v in values.items() if np.isfinite(v).any()}

    def preview(self, model: nn.Module) -> dict[str, np.ndarray]:
        """Predicted depth of the fixed frames, with the truth, as small arrays."""
        batch = self.shown.first(self.config.preview) if self.shown is not None else None
        if batch is None:
            return {}
        arrays = {"color": (batch.color * 255).round().byte(), "depth": batch.depth.half(), "is_valid": batch.is_valid,
                  "intrinsics": batch.intrinsics, "depth_prediction": self._metres(model, batch).half()}
        return marked({name: tensor.cpu().numpy() for name, tensor in arrays.items()}, self.shown, self.validation)

    def record(self) -> dict[str, Any]:
        """Configuration and data of the run."""
        return {"task": self.name, "training": to_dict(self.config), "data": self.data}

    def extras(self) -> dict[str, Tensor]:
        """The mean map."""
        return {} if self.mean_map is None else {"mean_map": self.mean_map}

    def may_leave_unused(self) -> bool:
        """See ``Segment.may_leave_unused``."""
        return self.model.layers[-1] < len(self.model.encoder.blocks) - 1 or bool(self.config.start.startswith("timm:"))
