"""Semantic segmentation: RGB in, one class per pixel out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mask3d_core.batches import Batch
from mask3d_core.evaluation.segmentation import METRICS, SegmentationScores
from mask3d_core.frames import IGNORE_LABEL
from mask3d_core.losses import frame_mean
from mask3d_core.models.dense import DenseModel
from mask3d_core.shapes import Float, Int
from mask3d_core.tasks import LossSum
from mask3d_core.training.config import to_dict
from mask3d_core.training.finetune_config import FinetuneConfig
from mask3d_core.training.held_out import HeldOut, marked
from mask3d_core.training.schedule import layer_decay


def segment_loss(value: Float[Tensor, "b c h w"], truth: Int[Tensor, "b h w"]) -> LossSum:
    """Cross entropy: mean over each frame's labelled pixels, summed over the frames that have any.

    Args:
        value: logits.
        truth: class ids, ``IGNORE_LABEL`` = not counted.
    """
    is_counted = truth != IGNORE_LABEL
    loss = F.cross_entropy(value, truth.masked_fill(~is_counted, 0), reduction="none")
    per_frame = frame_mean(loss, is_counted)
    here = is_counted.flatten(1).any(dim=1)
    right = frame_mean((value.detach().argmax(dim=1) == truth).float(), is_counted)
    return LossSum(torch.where(here, per_frame, 0.0).sum(), here.sum().float(), {"pixel_accuracy": right.sum()})


def score_segments(model: Callable[[Tensor], Tensor], frames: HeldOut, class_names: Sequence[str],
                   is_counted: Callable[[Batch], Tensor] | None = None) -> SegmentationScores:
    """One data-set-level confusion matrix, streamed.

    Args:
        model: from colour to logits.
        frames: read with "semantic" labels.
        class_names: by class id.
        is_counted: from a batch to Bool (b, h, w), further pixels to leave out.

    Raises:
        ConfigError: labels beyond the classes.
    """
    scores = SegmentationScores(tuple(class_names))
    for batch, sequences in frames:
        truth = batch.semantic if is_counted is None else batch.semantic.masked_fill(~is_counted(batch), IGNORE_LABEL)
        scores.add(model(batch.color).argmax(dim=1), truth, sequences)
    return scores


class Segment:
    """The task the engine trains.

    Args:
        config: the whole run.
        model: with as many outputs as there are classes.
        validation: frames of the periodic evaluation, or None.
        class_names: by class id.
        data: what the checkpoint's record says about the data.
    """

    name = "segment"

    def __init__(self, config: FinetuneConfig, model: DenseModel, validation: HeldOut | None, class_names: Sequence[str],
                 data: dict[str, Any]):
        self.config, self.model, self.validation, self.data = config, model, validation, data
        self.shown = validation  # the fixed frames of previews
        self.class_names = tuple(class_names)
        self.selection = ("miou", True) if config.select == "best" else None
        self.layer_scale = layer_decay(config.layer_decay, len(model.encoder.blocks))

    def loss(self, model: nn.Module, batch: Batch, step: int) -> LossSum:
        """Cross entropy over the labelled pixels."""
        return segment_loss(model(batch.color), batch.semantic)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """mIoU, mean and pixel accuracy of the validation frames."""
        if self.validation is None:
            return {}
        found = score_segments(model, self.validation, self.class_names).scores()
        return {name: found[name] for name in METRICS if np.isfinite(found[name])}

    def preview(self, model: nn.Module) -> dict[str, np.ndarray]:
        """Predicted classes of the fixed frames, with the truth, as small arrays."""
        batch = self.shown.first(self.config.preview) if self.shown is not None else None
        if batch is None:
            return {}
        arrays = {"color": (batch.color * 255).round().byte(), "semantic": batch.semantic.byte(),
                  "semantic_prediction": model(batch.color).argmax(dim=1).byte()}
        return marked({name: tensor.cpu().numpy() for name, tensor in arrays.items()}, self.shown, self.validation)

    def record(self) -> dict[str, Any]:
        """Configuration, classes and data of the run."""
        return {"task": self.name, "training": to_dict(self.config), "class_names": list(self.class_names), "data": self.data}

    def extras(self) -> dict[str, Tensor]:
        """Nothing travels along."""
        return {}

    def may_leave_unused(self) -> bool:
        """A head that reads an inner layer leaves the blocks above it without gradient."""
        return self.model.layers[-1] < len(self.model.encoder.blocks) - 1 or bool(self.config.start.startswith("timm:"))
