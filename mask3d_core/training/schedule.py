"""Learning rate and weight decay: warm-up, cosine, and who decays."""

from __future__ import annotations

import math

from torch import nn

from mask3d_core.training.config import FitConfig


def learning_rate(config: FitConfig, step: int, frames_per_step: int) -> float:
    """The rate of one step: linear warm-up, then half a cosine down to ``final_rate`` of the peak.

    The peak follows the linear rule lr * frames / 256 (Goyal et al. 2017, as MAE).
    """
    peak = config.learning_rate * frames_per_step / 256
    warmup = max(1, round(config.warmup * config.steps))
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, config.steps - warmup)
    return peak * (config.final_rate + (1 - config.final_rate) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


_NEVER_DECAY = ("pos_embed", "cls_token", "reg_token", "mask_token", "rgb_code", "depth_code")


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Two groups: matrices decay; biases, norms, tokens and position codes do not. Names travel along."""
    decay, rest = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_plain = parameter.ndim < 2 or name.rsplit(".", 1)[-1] in _NEVER_DECAY
            (rest if is_plain else decay).append((name, parameter))
    return [{"params": [p for _, p in group], "names": [n for n, _ in group], "weight_decay": value}
            for group, value in ((decay, weight_decay), (rest, 0.0)) if group]
