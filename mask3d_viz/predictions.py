"""What a session shows: predictions of the state's frame, masks, colour and checkpoint, with the opponents' beside them."""

from __future__ import annotations

import itertools
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch

from mask3d_core.batches import Batch
from mask3d_core.evaluation import OPPONENTS, counted_pixels, depth_metrics
from mask3d_core.evaluation.evaluate import shuffled_patches
from mask3d_core.masking import Masks, to_pixels
from mask3d_core.reconstruct import Reconstruction
from mask3d_viz.session import Session

CACHED = 64
MAX_DEPTH = 10.0  # metres; truth beyond is not scored
SHOWN_OPPONENTS = ("mean", "nearest", "linear_inverse", "color_guided")
METRICS = ("abs_rel", "rmse", "mae", "delta1")
_tokens: WeakKeyDictionary[torch.nn.Module, int] = WeakKeyDictionary()
_counter, _counting = itertools.count(), threading.Lock()


def model_token(model: torch.nn.Module) -> int:
    """A number of this loaded model that no other one ever has: ``id`` is given again once a model is gone."""
    with _counting:
        if model not in _tokens:
            _tokens[model] = next(_counter)
        return _tokens[model]


@dataclass(frozen=True)
class Shown:
    """A prediction with its judgement.

    Args:
        reconstruction: pictures, masks, scores.
        opponents: name to scores over the same pixels; empty where no depth is visible.
        seconds: that the model took.
        key: what it is the prediction of; equal keys, equal predictions.
    """

    reconstruction: Reconstruction
    opponents: dict[str, dict[str, float]]
    seconds: float
    key: tuple

    @property
    def best_opponent(self) -> str:
        """The opponent with the lowest AbsRel, or ""."""
        scored = {name: s["abs_rel"] for name, s in self.opponents.items() if "abs_rel" in s}
        return min(scored, key=scored.get, default="")

    def patch_values(self) -> dict[str, np.ndarray]:
        """Per patch, float32 (rows, columns): means over measured pixels of truth, prediction and signed error (metres).

        NaN where nothing was measured; the prediction's mean is then over all its pixels.
        """
        r = self.reconstruction
        patch = r.depth.shape[0] // r.is_masked_depth.shape[0]

        def mean(value: np.ndarray, where: np.ndarray) -> np.ndarray:
            rows, columns = r.is_masked_depth.shape
            cut = lambda a: a.reshape(rows, patch, columns, patch).swapaxes(1, 2).reshape(rows, columns, -1)  # noqa: E731
            count = cut(where).sum(-1)
            total = np.where(cut(where), cut(value), 0.0).sum(-1)
            return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)

        everywhere = np.ones_like(r.is_valid)
        prediction = mean(r.prediction, r.is_valid)
        return {"truth": mean(r.depth, r.is_valid), "error": mean(r.prediction - r.depth, r.is_valid),
                "prediction": np.where(np.isnan(prediction), mean(r.prediction, everywhere), prediction)}


class Predictions:
    """Predictions of a session, cached. Calls may come from any thread; torch runs one at a time.

    Args:
        session: whose state is asked for.
        with_opponents: measure them too.
    """

    def __init__(self, session: Session, with_opponents: bool = True):
        self.session, self.with_opponents = session, with_opponents
        self._cache: OrderedDict[tuple, Shown] = OrderedDict()
        self._opponents: OrderedDict[tuple, dict] = OrderedDict()

    def now(self, checkpoint: str | None = None) -> Shown:
        """The prediction of the state as it is.

        Args:
            checkpoint: another model than the state's.

        Raises:
            ConfigError: nothing visible at all, or a model without a depth target.
        """
        session = self.session
        with session.lock:
            state = session.state
            name = state.checkpoint if checkpoint is None else checkpoint
            model, _ = session.model(name)
            batch, masks = session.batch(), session.masks()
            ratios, seed = (state.rgb_ratio, state.depth_ratio), state.seed
            key = (model_token(model), state.frame, masks.rgb.numpy().tobytes(), masks.depth.numpy().tobytes(), state.color_source)
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
            color = self._color(batch, state.color_source)
            label = session.frames.name(state.frame)
        began = time.perf_counter()
        with torch.inference_mode():
            output = model(color, batch.depth, batch.is_valid, batch.intrinsics, masks)
        seconds = time.perf_counter() - began
        grid, patch = model.config.grid, model.config.patch
        hidden = to_pixels(masks.depth, grid, patch)
        counted = counted_pixels(batch.depth, batch.is_valid, hidden, MAX_DEPTH)
        made = Reconstruction(
            (color[0].permute(1, 2, 0) * 255).round().byte().numpy(), batch.depth[0].numpy(), output.depth[0].numpy(),
            batch.is_valid[0].numpy(), masks.rgb[0].view(grid).numpy(), masks.depth[0].view(grid).numpy(),
            batch.intrinsics[0].numpy(), _scores(output.depth, batch, counted), bool(output.space.is_scale_assumed[0]),
            ratios, seed, label)
        shown = Shown(made, self._of_opponents(key[1:], batch, masks, color, counted), seconds, key)
        with session.lock:
            self._cache[key] = shown
            while len(self._cache) > CACHED:
                self._cache.popitem(last=False)
        return shown

    def _color(self, batch: Batch, source: str) -> torch.Tensor:
        """The colour that the model sees: its own, or a counterfactual."""
        if source == "grey":
            return torch.full_like(batch.color, 0.5)
        if source == "shuffled":
            return shuffled_patches(batch.color, batch.frame_ids, self.session.patch)
        if source == "another frame":
            count = len(self.session.frames)
            return self.session.batch((self.session.state.frame + max(1, count // 2)) % count).color
        return batch.color

    def _of_opponents(self, key: tuple, batch: Batch, masks: Masks, color: torch.Tensor, counted: torch.Tensor
                      ) -> dict[str, dict[str, float]]:
        if not self.with_opponents:
            return {}
        if key not in self._opponents:
            grid, patch = self.session.grid, self.session.patch
            known = batch.is_valid & ~to_pixels(masks.depth, grid, patch)
            shown = ~to_pixels(masks.rgb, grid, patch)
            found = {} if not known.any() else {
                name: _scores(OPPONENTS[name](batch.depth, known, color, shown), batch, counted)
                for name in SHOWN_OPPONENTS}
            self._opponents[key] = found
            while len(self._opponents) > CACHED:
                self._opponents.popitem(last=False)
        return self._opponents[key]


def _scores(prediction: torch.Tensor, batch: Batch, counted: torch.Tensor) -> dict[str, float]:
    """Scores over the counted pixels; empty where there is none."""
    if not counted.any():
        return {}
    values = depth_metrics(prediction, batch.depth, counted)
    return {name: float(values[name]) for name in METRICS}


__all__ = ["Predictions", "Shown", "model_token"]
