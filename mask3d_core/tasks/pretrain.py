"""Pre-training: hide patches, predict, compare. Mask3D and every control are configs of this one task."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mask3d_core.batches import Batch
from mask3d_core.losses import FLOOR, depth_loss, frame_mean, gradient_loss, multi_scale_loss, normal_loss
from mask3d_core.masking import Masks, to_pixels
from mask3d_core.models.mask3d import Mask3D, Prediction, rgb_target
from mask3d_core.tasks import LossSum
from mask3d_core.training.config import PretrainConfig, to_dict

EVAL_SEED = 20230  # masks of the periodic evaluation; other masks than any training step's


def pretrain_loss(config: PretrainConfig, batch: Batch, masks: Masks, output: Prediction) -> LossSum:
    """The loss of one micro-batch: a sum over frames and the number of frames with anything to count.

    Args:
        config: loss weights and which pixels count.
        batch, masks: what was fed.
        output: what came out.
    """
    patch = config.model.patch
    frames = batch.color.shape[0]
    per_frame = torch.zeros(frames, device=batch.color.device)
    has_any = torch.zeros(frames, dtype=torch.bool, device=batch.color.device)
    parts: dict[str, Tensor] = {}
    if output.value is not None:
        grid = (batch.depth.shape[1] // patch, batch.depth.shape[2] // patch)
        counted, shown = batch.is_valid, None
        if config.loss.counted == "hidden" and "depth" in config.model.inputs:
            hidden = to_pixels(masks.depth, grid, patch)
            counted, shown = batch.is_valid & hidden, batch.is_valid & ~hidden
        terms = {"depth": (1.0, _depth_term(config, batch, output, counted, counted))}
        if shown is not None and config.loss.visible:
            terms["visible"] = (config.loss.visible, _depth_term(config, batch, output, shown, counted))
        if config.loss.gradient:
            loss = gradient_loss(output.depth, batch.depth, batch.is_valid, counted)
            terms["gradient"] = (config.loss.gradient, loss)
        if config.loss.normal:
            loss = normal_loss(output.depth, batch.depth, batch.is_valid, counted, batch.intrinsics)
            terms["normal"] = (config.loss.normal, loss)
        if config.loss.multi_scale:
            target = output.space.encode(batch.depth)
            terms["multi_scale"] = (config.loss.multi_scale, multi_scale_loss(output.value, target, counted))
        if "visible" in terms:
            counted = batch.is_valid
        here = counted.flatten(1).any(dim=1)
        for name, (weight, loss) in terms.items():
            loss = torch.where(here, loss, 0.0)
            per_frame = per_frame + weight * loss
            parts[name] = loss.sum()
        has_any = has_any | here
    if output.rgb is not None:
        error = (output.rgb - rgb_target(batch.color, patch)).square().mean(dim=-1)
        is_counted = masks.rgb if config.loss.counted == "hidden" else torch.ones_like(masks.rgb)
        here = is_counted.any(dim=1)
        loss = torch.where(here, frame_mean(error, is_counted), 0.0)
        per_frame = per_frame + config.loss.rgb * loss
        parts["rgb"] = loss.sum()
        has_any = has_any | here
    return LossSum(per_frame.sum(), has_any.sum().float(), parts)


def _depth_term(config: PretrainConfig, batch: Batch, output: Prediction, counted: Tensor, hidden: Tensor) -> Tensor:
    """The main loss over ``counted``; a relative one in units of what the anchor alone misses over ``hidden``."""
    target = output.space.encode(batch.depth)
    loss = depth_loss(config.loss.kind, output.value, target, output.depth, batch.depth, counted)
    if not config.loss.relative:
        return loss
    with torch.no_grad():
        start = depth_loss(config.loss.kind, output.anchor, target, output.space.decode(output.anchor), batch.depth,
                           hidden)
    return loss / (start + FLOOR)


class Pretrain:
    """The task the engine trains.

    Args:
        config: the whole run.
        model: a ``Mask3D`` with its depth statistics set.
        validation: fixed frames for the periodic evaluation (on the model's device), or None.
        data: what the checkpoint's record says about the data.
        mean_map: Float (h, w), the training data's mean canonical depth; travels with the weights.
    """

    name = "pretrain"

    def __init__(self, config: PretrainConfig, model: Mask3D, validation: Batch | None, data: dict[str, Any],
                 mean_map: Tensor | None = None):
        self.config, self.model, self.validation, self.data = config, model, validation, data
        self.mean_map = mean_map

    def masks(self, batch: Batch, ratios: tuple[float, float], seed: int) -> Masks:
        """Random masks of a batch at these ratios."""
        return Masks.random(ratios, batch.frame_ids, batch.epochs, batch.is_valid, self.config.model.patch, seed,
                            self.config.mask.block, batch.may_have_holes)

    def loss(self, model: nn.Module, batch: Batch, step: int) -> LossSum:
        """Draw the step's ratios, hide, predict, compare."""
        masks = self.masks(batch, self.config.mask.draw(step), self.config.mask.seed)
        output = model(batch.color, batch.depth, batch.is_valid, batch.intrinsics, masks)
        return pretrain_loss(self.config, batch, masks, output)

    def _chunks(self, size: int = 16):
        for start in range(0, len(self.validation), size):
            yield self.validation[slice(start, start + size)]

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """AbsRel over hidden valid pixels (and the RGB error, where predicted) at the configuration's first ratios."""
        from mask3d_core.evaluation.metrics import depth_metrics

        if self.validation is None:
            return {}
        values: dict[str, list[Tensor]] = {}
        ratios = self.config.mask.ratios[0]
        for batch in self._chunks():
            masks = self.masks(batch, ratios, EVAL_SEED)
            output = model(batch.color, batch.depth, batch.is_valid, batch.intrinsics, masks)
            if output.depth is not None:
                patch = self.config.model.patch
                grid = (batch.depth.shape[1] // patch, batch.depth.shape[2] // patch)
                hidden = batch.is_valid & to_pixels(masks.depth, grid, patch)
                scores = depth_metrics(output.depth, batch.depth, hidden)
                for name in ("abs_rel", "rmse", "delta1"):
                    values.setdefault(name, []).append(scores[name])
                known = batch.is_valid & ~hidden
                total = torch.where(known, batch.depth, 0.0).flatten(1).sum(dim=1)
                mean = (total / known.flatten(1).sum(dim=1).clamp(min=1))[:, None, None].expand_as(batch.depth)
                answer = depth_metrics(mean, batch.depth, hidden & known.flatten(1).any(dim=1)[:, None, None])
                values.setdefault("abs_rel_of_the_mean", []).append(answer["abs_rel"])
            if output.rgb is not None:
                error = (output.rgb - rgb_target(batch.color, self.config.model.patch)).square().mean(dim=-1)
                values.setdefault("rgb_error", []).append(frame_mean(error, masks.rgb))
        means = {name: float(torch.cat(parts).float().nanmean()) for name, parts in values.items()}
        return {name: value for name, value in means.items() if math.isfinite(value)}  # nothing to score: no number

    def preview(self, model: nn.Module) -> dict[str, np.ndarray]:
        """Predictions of the first validation frames with what was hidden, as small arrays."""
        if self.validation is None or not self.config.preview:
            return {}
        batch = self.validation[slice(0, self.config.preview)]
        masks = self.masks(batch, self.config.mask.ratios[0], EVAL_SEED)
        output = model(batch.color, batch.depth, batch.is_valid, batch.intrinsics, masks)
        arrays = {"color": (batch.color * 255).round().byte(), "depth": batch.depth.half(), "is_valid": batch.is_valid,
                  "intrinsics": batch.intrinsics, "is_masked_rgb": masks.rgb, "is_masked_depth": masks.depth}
        if output.depth is not None:
            arrays["prediction"] = output.depth.half()
        if output.rgb is not None:
            arrays["rgb_prediction"] = output.rgb.half()
        return {name: tensor.cpu().numpy() for name, tensor in arrays.items()}

    def record(self) -> dict[str, Any]:
        """Configuration and data of the run."""
        return {"training": to_dict(self.config), "data": self.data}

    def extras(self) -> dict[str, Tensor]:
        """The mean map, for the opponent where no depth is visible."""
        return {} if self.mean_map is None else {"mean_map": self.mean_map}

    def may_leave_unused(self) -> bool:
        """A ratio of 1 leaves a whole encoder out of that step; a timm model may have pooling layers that nobody asks."""
        return bool(self.config.model.rgb.timm) or any(1.0 in pair for pair in self.config.mask.ratios)
