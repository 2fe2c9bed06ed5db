"""Learning rate and weight decay: warm-up, cosine, and who decays."""

from __future__ import annotations

import math
from collections.abc import Callable

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


def parameter_groups(model: nn.Module, weight_decay: float, layer_scale: Callable[[str], float] | None = None) -> list[dict]:
    """Groups for the optimiser: matrices decay; biases, norms, tokens and position codes do not. Names travel along.

    Args:
        weight_decay: of those that decay.
        layer_scale: from a parameter's name to what its learning rate is multiplied with ("lr_scale" of its group); None: 1
            for all. With it, lower layers may learn more slowly (:func:`layer_decay`).
    """
    groups: dict[tuple[float, float], list] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_plain = parameter.ndim < 2 or name.rsplit(".", 1)[-1] in _NEVER_DECAY
            scale = 1.0 if layer_scale is None else layer_scale(name)
            groups.setdefault((scale, 0.0 if is_plain else weight_decay), []).append((name, parameter))
    return [{"params": [p for _, p in group], "names": [n for n, _ in group], "weight_decay": decay, "lr_scale": scale}
            for (scale, decay), group in sorted(groups.items(), key=lambda item: (-item[0][0], -item[0][1]))]


def layer_decay(decay: float, depth: int, prefix: str = "encoder.") -> Callable[[str], float]:
    """Layer-wise learning-rate decay (Clark et al., ELECTRA, 2020; BEiT and MAE fine-tune with it).

    Args:
        decay: 1 = none; block k of ``depth`` learns at decay^(depth - k) of the head's rate, the embedding at
            decay^(depth + 1).
        depth: blocks of the encoder.
        prefix: how the encoder's parameters begin.

    Returns:
        From a parameter's name to its factor.
    """
    def scale(name: str) -> float:
        if not name.startswith(prefix):
            return 1.0
        parts = name[len(prefix):].split(".")
        if parts[0] == "blocks":
            return decay ** (depth - int(parts[1]))
        return decay if parts[0] in ("norm", "fc_norm") else decay ** (depth + 1)

    return scale
