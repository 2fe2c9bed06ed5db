"""What a session shows: predictions of the state's frame, masks, colour and checkpoint, with the opponents' beside them."""

from __future__ import annotations

import itertools
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch

from mask3d_core.batches import Batch
from mask3d_core.evaluation import OPPONENTS, counted_pixels, depth_metrics
from mask3d_core.errors import ConfigError
from mask3d_core.evaluation.evaluate import shuffled_patches
from mask3d_core.evaluation.opponents import MeanMap
from mask3d_core.evaluation.ratio_map import MEAN_MAP
from mask3d_core.masking import Masks, to_pixels
from mask3d_core.models import Mask3D
from mask3d_core.reconstruct import Reconstruction
from mask3d_viz.pixels import patch_means
from mask3d_viz.session import Session

CACHED = 64
MAX_DEPTH = 10.0  # metres; truth beyond is not scored
SHOWN_OPPONENTS = tuple(OPPONENTS)  # all: the best of them is called the best
SEE_COLOR = ("color_guided",)  # of them; the others' scores hang on the depth mask alone
METRICS = ("abs_rel", "rmse", "mae", "delta1")
_tokens: WeakKeyDictionary[torch.nn.Module, int] = WeakKeyDictionary()
_counter, _counting = itertools.count(), threading.Lock()


def model_token(model: torch.nn.Module) -> int:
    """A number of this loaded model that no other one ever has: ``id`` is given again once a model is gone."""
    with _counting:
        if model not in _tokens:
            _tokens[model] = next(_counter)
        return _tokens[model]


class Seen(NamedTuple):
    """What a prediction was made from: the frame, the masks, the colour that the model saw, the pixels that count."""

    model: Mask3D
    frame: Batch
    masks: Masks
    color: torch.Tensor
    counted: torch.Tensor

    @property
    def batch(self) -> Batch:
        """The frame as the model saw it."""
        return replace(self.frame, color=self.color)


@dataclass(frozen=True)
class Shown:
    """A prediction with its judgement.

    Args:
        reconstruction: pictures, masks, scores.
        opponents: name to scores over the same pixels; empty where no depth is visible, None where they were not measured
            (yet).
        seconds: that the model took.
        key: what it is the prediction of; equal keys, equal predictions.
        seen: what it was made from, for whoever judges or questions it.
    """

    reconstruction: Reconstruction
    opponents: dict[str, dict[str, float]] | None
    seconds: float
    key: tuple
    seen: Seen | None = field(default=None, repr=False, compare=False)

    @property
    def best_opponent(self) -> str:
        """The opponent with the lowest AbsRel, or ""."""
        scored = {name: s["abs_rel"] for name, s in (self.opponents or {}).items() if "abs_rel" in s}
        return min(scored, key=scored.get, default="")

    def patch_values(self) -> dict[str, np.ndarray]:
        """Per patch, float32 (rows, columns): means over measured pixels of truth, prediction and signed error (metres).

        NaN where nothing was measured; the prediction's mean is then over all its pixels.
        """
        r = self.reconstruction
        grid, everywhere = r.is_masked_depth.shape, np.ones_like(r.is_valid)
        prediction = patch_means(r.prediction, r.is_valid, grid)
        return {"truth": patch_means(r.depth, r.is_valid, grid), "error": patch_means(r.prediction - r.depth, r.is_valid, grid),
                "prediction": np.where(np.isnan(prediction), patch_means(r.prediction, everywhere, grid), prediction)}


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
        self._of_depth: OrderedDict[tuple, dict] = OrderedDict()

    def now(self, checkpoint: str | None = None, judge: bool = True, color_source: str | None = None) -> Shown:
        """The prediction of the state as it is.

        Args:
            checkpoint: another model than the state's.
            judge: with its opponents beside it; they take longer than the prediction, so a view shows that first.
            color_source: another colour than the state's, one of ``COLOR_SOURCES``.

        Raises:
            ConfigError: nothing visible at all, or a model without a depth target.
        """
        session = self.session
        with session.lock:
            state = session.state
            name = state.checkpoint if checkpoint is None else checkpoint
            model, _ = session.model(name)
            if "depth" not in model.config.targets:
                raise ConfigError(f"{name} predicts {' and '.join(model.config.targets)}, no depth: there is nothing to show "
                                  "here; what its RGB encoder knows is in explore_features(session)")
            batch, masks = session.batch(), session.masks()
            ratios, seed = (state.rgb_ratio, state.depth_ratio), state.seed
            source = state.color_source if color_source is None else color_source
            key = (model_token(model), state.frame, masks.rgb.numpy().tobytes(), masks.depth.numpy().tobytes(), source)
            if key in self._cache:
                self._cache.move_to_end(key)
                shown = self._cache[key]
                return self.judge(shown) if judge else shown
            color = self._color(batch, source)
            label = session.frames.name(state.frame)
        began = time.perf_counter()
        with torch.inference_mode():
            output = model(color, batch.depth, batch.is_valid, batch.intrinsics, masks)
        seconds = time.perf_counter() - began
        grid, patch = model.config.grid, model.config.patch
        hidden = to_pixels(masks.depth, grid, patch)
        if "depth" not in model.config.inputs:  # it sees none, whatever the slider says
            hidden = torch.ones_like(hidden)
            masks = replace(masks, depth=torch.ones_like(masks.depth))
        counted = counted_pixels(batch.depth, batch.is_valid, hidden, MAX_DEPTH)
        made = Reconstruction(
            _as_picture(color), batch.depth[0].numpy(), output.depth[0].numpy(),
            batch.is_valid[0].numpy(), masks.rgb[0].view(grid).numpy(), masks.depth[0].view(grid).numpy(),
            batch.intrinsics[0].numpy(), _scores(output.depth, batch, counted), bool(output.space.is_scale_assumed[0]),
            ratios, seed, label)
        shown = Shown(made, None, seconds, key, Seen(model, batch, masks, color, counted))
        self._remember(shown)
        return self.judge(shown) if judge else shown

    def judge(self, shown: Shown) -> Shown:
        """The same prediction with its opponents measured."""
        if shown.opponents is not None or not self.with_opponents:
            return shown
        shown = replace(shown, opponents=self._of_opponents(shown.key, shown.seen))
        self._remember(shown)
        return shown

    def _remember(self, shown: Shown) -> None:
        with self.session.lock:
            self._cache[shown.key] = shown
            while len(self._cache) > CACHED:
                self._cache.popitem(last=False)

    def color(self, source: str | None = None) -> np.ndarray:
        """The colour that the model would see in the state as it is, before it is masked: uint8 (H, W, 3).

        Args:
            source: another than the state's, one of ``COLOR_SOURCES``.

        Raises:
            ConfigError: another frame's is asked for and there is none.
        """
        with self.session.lock:
            return _as_picture(self._color(self.session.batch(), source or self.session.state.color_source))

    def _color(self, batch: Batch, source: str) -> torch.Tensor:
        """The colour that the model sees: its own, or a counterfactual."""
        if source == "grey":
            return torch.full_like(batch.color, 0.5)
        if source == "shuffled":
            return shuffled_patches(batch.color, batch.frame_ids, self.session.patch)
        if source == "another frame":
            count = len(self.session.frames)
            if count < 2:
                raise ConfigError("another frame's colour needs a second frame in the session")
            return self.session.batch((self.session.state.frame + max(1, count // 2)) % count).color
        return batch.color

    def _of_opponents(self, key: tuple, seen: Seen) -> dict[str, dict[str, float]]:
        if key not in self._opponents:
            config, batch = seen.model.config, seen.frame
            known = batch.is_valid & ~to_pixels(seen.masks.depth, config.grid, config.patch)
            if known.any():
                shown = ~to_pixels(seen.masks.rgb, config.grid, config.patch)
                of_depth = self._of_depth.setdefault((key[0], key[1], key[3]), {})  # model, frame, depth mask
                found = {}
                for name in SHOWN_OPPONENTS:
                    known_of = found if name in SEE_COLOR else of_depth
                    if name not in known_of:
                        known_of[name] = _scores(OPPONENTS[name](batch.depth, known, seen.color, shown), batch, seen.counted)
                    found[name] = known_of[name]
                while len(self._of_depth) > CACHED:
                    self._of_depth.popitem(last=False)
            else:
                found = self._of_mean_map(seen)
            self._opponents[key] = found
            while len(self._opponents) > CACHED:
                self._opponents.popitem(last=False)
        return self._opponents[key]

    def _of_mean_map(self, seen: Seen) -> dict[str, dict[str, float]]:
        """With no depth to start from, the training set's mean per pixel, where the checkpoint brings it."""
        record = next((r for m, r in self.session.loaded() if m is seen.model), {})
        values = record.get("extras", {}).get("mean_map")
        if values is None:
            return {}
        size = tuple(seen.frame.depth.shape[1:])
        guess = MeanMap(values, seen.model.config.target.reference_focal, 0).predict(seen.frame.intrinsics, size)
        return {MEAN_MAP: _scores(guess, seen.frame, seen.counted)}


def _as_picture(color: torch.Tensor) -> np.ndarray:
    """Colour (1, 3, H, W) in 0..1 as uint8 (H, W, 3)."""
    return (color[0].permute(1, 2, 0) * 255).round().byte().numpy()


def _scores(prediction: torch.Tensor, batch: Batch, counted: torch.Tensor) -> dict[str, float]:
    """Scores over the counted pixels; empty where there is none."""
    if not counted.any():
        return {}
    values = depth_metrics(prediction, batch.depth, counted)
    return {name: float(values[name]) for name in METRICS}


__all__ = ["Predictions", "Shown", "model_token"]
