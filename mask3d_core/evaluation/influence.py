"""Influence: how far a patch's predicted depth moves when one visible patch is taken away. Measured, not read off.

Every visible patch of either modality is hidden once, all variants run in batches, and each prediction is compared with
the whole one. One pass answers for every patch that might be asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mask3d_core.batches import Batch
from mask3d_core.errors import ConfigError
from mask3d_core.masking import Masks
from mask3d_core.models.mask3d import Mask3D
from mask3d_core.models.patches import patchify
from mask3d_core.shapes import Bool, Float

CHUNK = 16  # variants in one forward pass


@dataclass(frozen=True)
class Influence:
    """What each patch's prediction owes to each visible patch.

    Args:
        depth_moves: Float (asked, taken) metres, mean over the asked patch's pixels of prediction without minus
            prediction with the taken depth patch; NaN where that patch was not visible.
        rgb_moves: the same for RGB patches.
        base: Float (n,) metres, mean prediction of each patch with everything that is visible.
    """

    depth_moves: Float[Tensor, "n n"]
    rgb_moves: Float[Tensor, "n n"]
    base: Float[Tensor, "n"]

    def shares(self, patch: int) -> dict[str, float]:
        """How much of all movement of a patch comes from each modality, 0..1; both 0 where nothing moves it."""
        total = {name: float(moves[patch].abs().nansum()) for name, moves in self._both()}
        whole = sum(total.values())
        return {name: value / whole if whole else 0.0 for name, value in total.items()}

    def top(self, patch: int, count: int = 10) -> list[tuple[str, int, float]]:
        """The strongest influences on a patch: (modality, patch taken away, signed metres), strongest first."""
        found = [(name, int(k), float(moves[patch, k])) for name, moves in self._both()
                 for k in (~moves[patch].isnan()).nonzero()[:, 0]]
        return sorted(found, key=lambda item: -abs(item[2]))[:count]

    def _both(self) -> tuple[tuple[str, Tensor], tuple[str, Tensor]]:
        return ("rgb", self.rgb_moves), ("depth", self.depth_moves)


@torch.inference_mode()
def measure_influence(model: Mask3D, batch: Batch, masks: Masks, chunk: int = CHUNK,
                      progress: Callable[[int, int], None] | None = None) -> Influence:
    """Take each visible patch away once.

    Args:
        model: in evaluation mode, with a depth target.
        batch: one frame. masks: of it.
        chunk: variants in one forward pass.
        progress: called with (done, total); may raise to stop.

    Raises:
        ConfigError: more than one frame, or a model without depth.
    """
    if len(batch) != 1 or "depth" not in model.config.targets:
        raise ConfigError(f"influence is measured on one frame with a model that predicts depth; got {len(batch)} "
                          f"frames and targets {model.config.targets}")
    count = masks.rgb.shape[1]
    visible = {name: _visible(model, masks, name) for name in ("rgb", "depth")}
    taken = [(name, int(k)) for name, where in visible.items() for k in where.nonzero()[:, 0]]
    if sum(int(where.any()) for where in visible.values()) == 1 and len(taken) == 1:
        raise ConfigError("only one patch is visible; without it there is nothing to predict from. Show more patches")
    moves = {name: torch.full((count, count), float("nan")) for name in ("rgb", "depth")}
    base = _patch_means(model, batch, masks)[0]
    for start in range(0, len(taken), chunk):
        part = taken[start:start + chunk]
        found = _patch_means(model, batch, _without(masks, part))
        for (name, k), values in zip(part, found, strict=True):
            moves[name][:, k] = (values - base).cpu()
        if progress:
            progress(min(start + chunk, len(taken)), len(taken))
    return Influence(moves["depth"], moves["rgb"], base.cpu())


def _visible(model: Mask3D, masks: Masks, name: str) -> Bool[Tensor, "n"]:
    hidden = getattr(masks, name)[0]
    return ~hidden if name in model.config.inputs else torch.zeros_like(hidden)


def _without(masks: Masks, taken: list[tuple[str, int]]) -> Masks:
    """One variant per patch taken away."""
    both = {name: getattr(masks, name).expand(len(taken), -1).clone() for name in ("rgb", "depth")}
    for row, (name, k) in enumerate(taken):
        both[name][row, k] = True
    return replace(masks, **both, rgb_may_pad=True, depth_may_pad=True)


def _patch_means(model: Mask3D, batch: Batch, masks: Masks) -> Float[Tensor, "v n"]:
    """Mean predicted metres of each patch, for each variant of the masks."""
    number = masks.rgb.shape[0]
    pictures = [tensor.expand(number, *tensor.shape[1:]) for tensor in (
        batch.color, batch.depth, batch.is_valid, batch.intrinsics)]
    return patchify(model(*pictures, masks).depth[:, None], model.config.patch).mean(dim=-1)


__all__ = ["CHUNK", "Influence", "measure_influence"]
