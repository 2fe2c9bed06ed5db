"""Measuring a :class:`RatioMap`, cell by cell, coarse to fine: stopped by asking no more, resumed from what is there."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from mask3d_core.batches import Batch
from mask3d_core.errors import ConfigError, Mask3DError
from mask3d_core.evaluation.metrics import counted_pixels, depth_metrics
from mask3d_core.evaluation.opponents import OPPONENTS, MeanMap, predict
from mask3d_core.evaluation.ratio_map import MAP_METRICS, MEAN_MAP, MODEL, Place, RatioMap
from mask3d_core.masking import Masks, to_pixels
from mask3d_core.models.mask3d import Mask3D

CHUNK = 8  # frames in one forward pass


def fill_ratio_map(start: RatioMap, model: Mask3D, batch: Batch, mean_map: Tensor | None = None,
                   chunk: int = CHUNK) -> Iterator[RatioMap]:
    """Measure what is missing, one cell at a time.

    Opponents that do not look at colour are measured once per depth ratio. Where no depth is visible there is nothing to
    interpolate: the one opponent is the training set's mean map, or nobody.

    Args:
        start: the map so far; an interrupted one goes on where it stopped, with the same numbers.
        model: in evaluation mode.
        batch: the frames of ``start``, in its order.
        mean_map: Float (h, w), ``record["extras"]["mean_map"]`` of the checkpoint.
        chunk: frames in one forward pass.

    Yields:
        The map with one more cell, each time.

    Raises:
        ConfigError: other frames than the map's.
        Mask3DError: a prediction that is not finite.
    """
    if [f.number for f in start.frames] != batch.frame_ids.tolist():
        raise ConfigError(f"the frames of the map are {[f.number for f in start.frames]}; got {batch.frame_ids.tolist()}")
    found = start
    for place in start.missing:
        found = found.with_cell(place, measure_cell(found, place, model, batch, mean_map, chunk))
        yield found


@torch.inference_mode()
def measure_cell(known: RatioMap, place: Place, model: Mask3D, batch: Batch, mean_map: Tensor | None = None,
                 chunk: int = CHUNK) -> dict[str, np.ndarray]:
    """Scores of one cell: predictor to float64 (metrics, frames, draws). Arguments as :func:`fill_ratio_map`."""
    colorless = known.without_rgb(place[0])
    columns: dict[str, list[np.ndarray]] = {}
    for seed in known.seeds:
        parts: dict[str, list[np.ndarray]] = {}
        for first in range(0, len(batch), chunk):
            scored = _score(known, place, seed, model, batch[first:first + chunk], mean_map, colorless is None)
            for name, values in scored.items():
                parts.setdefault(name, []).append(values)
        for name, values in parts.items():
            columns.setdefault(name, []).append(np.concatenate(values, axis=1))
    measured = {name: np.stack(draws, axis=2) for name, draws in columns.items()}
    infinite = [name for name, values in measured.items() if np.isinf(values).any()]
    if infinite:
        raise Mask3DError("finite predictions", f"others from {', '.join(infinite)} at ratios {known.ratios(place)}",
                          "Look at the model: its weights may be broken.")
    return {**measured, **(colorless or {})}


def _score(known: RatioMap, place: Place, seed: int, model: Mask3D, batch: Batch, mean_map: Tensor | None,
           with_colorless: bool) -> dict[str, np.ndarray]:
    """(metrics, frames) of every predictor under one mask draw."""
    patch, (rgb_ratio, depth_ratio) = model.config.patch, known.ratios(place)
    grid = (batch.depth.shape[1] // patch, batch.depth.shape[2] // patch)
    masks = Masks.random((rgb_ratio, depth_ratio), batch.frame_ids, batch.epochs, batch.is_valid, patch, seed)
    hidden = to_pixels(masks.depth, grid, patch)
    if "depth" not in model.config.inputs:
        hidden = torch.ones_like(hidden)
    counted = counted_pixels(batch.depth, batch.is_valid, hidden, known.max_depth)

    def judged(prediction: Tensor) -> np.ndarray:
        values = depth_metrics(prediction, batch.depth, counted)
        return torch.stack([values[name] for name in MAP_METRICS]).double().cpu().numpy()

    scores = {MODEL: judged(model(batch.color, batch.depth, batch.is_valid, batch.intrinsics, masks).depth)}
    if "depth" in model.config.inputs and depth_ratio < 1:
        shown = ~to_pixels(masks.rgb, grid, patch)
        for name in OPPONENTS:
            if with_colorless or name == "color_guided":
                scores[name] = judged(predict(name, batch.depth, batch.is_valid & ~hidden, batch.color, shown,
                                              float("nan")).depth)
    elif mean_map is not None and with_colorless:
        size = (batch.depth.shape[1], batch.depth.shape[2])
        scores[MEAN_MAP] = judged(MeanMap(mean_map, model.config.target.reference_focal, 0).predict(batch.intrinsics, size))
    return scores


__all__ = ["CHUNK", "fill_ratio_map", "measure_cell"]
