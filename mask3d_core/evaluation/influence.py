"""Influence: how far a patch's predicted depth moves when one visible patch is taken away. Measured, not read off.

Every visible patch of either modality is hidden once, all variants run in batches, and each prediction is compared with
the whole one. One pass answers for every patch that might be asked. What a missing patch cannot change is computed once:
without an RGB patch the depth encoder gives what it gave (and so does the surface that the prediction starts from),
without a depth patch the RGB encoder.
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
from mask3d_core.models.targets import DepthSpace
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
    whole = _Whole(model, batch, masks)
    base, done = whole.means()[0], 0
    for name in ("rgb", "depth"):
        patches = [k for what, k in taken if what == name]
        for first in range(0, len(patches), chunk):
            part = patches[first:first + chunk]
            moves[name][:, part] = (whole.without(name, part) - base).T.cpu()
            done += len(part)
            if progress:
                progress(done, len(taken))
    return Influence(moves["depth"], moves["rgb"], base.cpu())


def _visible(model: Mask3D, masks: Masks, name: str) -> Bool[Tensor, "n"]:
    hidden = getattr(masks, name)[0]
    return ~hidden if name in model.config.inputs else torch.zeros_like(hidden)


class _Whole:
    """One frame with all that is visible, encoded once, and its variants.

    Args:
        model: in evaluation mode. batch: one frame. masks: of it.
    """

    def __init__(self, model: Mask3D, batch: Batch, masks: Masks):
        self.model, self.batch, self.masks = model, batch, masks
        self.is_visible, self.space = model.seen(batch.depth, batch.is_valid, batch.intrinsics, masks)
        self.encoded = model.encode(batch.color, batch.depth, self.is_visible, self.space, masks)
        if not self.encoded:
            raise ConfigError("nothing is visible, so there is nothing to take away. Show some patches")
        self.start = model.start(batch.depth, self.is_visible, self.space)

    def means(self) -> Float[Tensor, "1 n"]:
        """Mean predicted metres of each patch, with everything that is visible."""
        return self._means(self.encoded, self.space, self.start)

    def without(self, name: str, patches: list[int]) -> Float[Tensor, "v n"]:
        """The same without one patch of a modality, for each of these patches."""
        model, count = self.model, len(patches)
        hidden = getattr(self.masks, name).repeat(count, 1)
        hidden[torch.arange(count), torch.tensor(patches)] = True
        other = "depth" if name == "rgb" else "rgb"
        masks = replace(self.masks, **{name: hidden, other: getattr(self.masks, other).expand(count, -1),
                                       f"{name}_count": int((~hidden[0]).sum()), f"{name}_may_pad": False})
        color, depth, is_valid, intrinsics = (tensor.expand(count, *tensor.shape[1:]) for tensor in (
            self.batch.color, self.batch.depth, self.batch.is_valid, self.batch.intrinsics))
        is_visible, space, start = self.is_visible.expand(count, -1, -1), self.space, self.start
        if name == "depth":
            is_visible, space = model.seen(depth, is_valid, intrinsics, masks)
            start = model.start(depth, is_visible, space)
        encoded = {kept: tuple(None if part is None else part.expand(count, *part.shape[1:]) for part in parts)
                   for kept, parts in self.encoded.items() if kept != name}
        encoded |= model.encode(color, depth, is_visible, space, masks, (name,))
        return self._means({key: encoded[key] for key in ("rgb", "depth") if key in encoded}, space, start)

    def _means(self, encoded: dict, space: DepthSpace, start: tuple) -> Float[Tensor, "v n"]:
        prediction = self.model.predict(encoded, space, start, self.batch.depth.shape[-2:])
        return patchify(prediction.depth[:, None], self.model.config.patch).mean(dim=-1)


__all__ = ["CHUNK", "Influence", "measure_influence"]
