"""``mask3d evaluate``: a checkpoint against its opponents on frames it never saw, on the same masks, in metres.

Scores are over hidden valid pixels, averaged per frame, then over mask draws; intervals resample rooms or sequences,
never frames; differences to each opponent are paired. Nothing is aligned in scale.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mask3d_core.batches import Batch
from mask3d_core.errors import ConfigError
from mask3d_core.evaluation.metrics import counted_pixels, depth_metrics, seam_error
from mask3d_core.evaluation.opponents import OPPONENTS, MeanMap
from mask3d_core.evaluation.opponents import predict as opponent
from mask3d_core.evaluation.scores import FrameScores
from mask3d_core.masking import Masks, to_pixels
from mask3d_core.models.mask3d import Mask3D
from mask3d_core.models.patches import patchify, unpatchify
from mask3d_core.models.targets import depth_space
from mask3d_core.randomness import random_bits, stream
from mask3d_core.training.pretraining import fixed_batch

MASK_SEED = 71001  # of the evaluation's mask draws; no training run uses it
METRIC_NAMES = ("abs_rel", "rmse", "mae", "delta1")
MODEL = "Mask3D"


@dataclass(frozen=True)
class EvaluateConfig:
    """How a checkpoint is measured.

    Args:
        ratios: pairs (share of RGB patches hidden, share of depth patches hidden).
        draws: mask draws per frame.
        split: of the store: "train", "val", "test" or "all".
        limit: at most this many frames, evenly spaced; 0 = all.
        max_depth: truth beyond this many metres is not scored.
        seed: of the masks.
        allow_seen: score frames that the checkpoint was trained on (marked in the result).
        opponents: measure the trivial opponents too.
    """

    ratios: tuple[tuple[float, float], ...] = ((0.8, 0.8), (0.8, 0.95), (0.8, 1.0))
    draws: int = 3
    split: str = "test"
    limit: int = 0
    max_depth: float = 10.0
    seed: int = MASK_SEED
    allow_seen: bool = False
    opponents: bool = True

    def problems(self, inputs: tuple[str, ...]) -> list[str]:
        """Everything that is wrong, one line each."""
        from mask3d_core.masking import MaskConfig

        found = MaskConfig(ratios=self.ratios).problems(inputs)
        for name, least in (("draws", 1), ("limit", 0)):
            if getattr(self, name) < least:
                found.append(f"{name} must be at least {least}; got {getattr(self, name)}")
        if self.max_depth <= 0:
            found.append(f"max_depth must be positive; got {self.max_depth}")
        return found


def choose_frames(store, record: dict[str, Any], config: EvaluateConfig) -> tuple[np.ndarray, np.ndarray]:
    """The frames to score and which of them the checkpoint was trained on.

    Raises:
        ConfigError: an empty split, or every frame was seen in training and ``allow_seen`` is off.
    """
    indices = store.indices(config.split)
    if not len(indices):
        counts = ", ".join(f"{k} {v}" for k, v in store.header.split_counts.items())
        raise ConfigError(f"the store has no frames in split {config.split!r} ({counts}); choose another with --split")
    data = record.get("data", {})
    is_seen = store.is_seen(indices, data.get("sequences", []))
    source = store.first_source
    for live in data.get("rooms", []):
        if source.get("source") == "rooms" and all(source.get(k) == live.get(k) for k in ("seed", "pool")):
            is_seen[:] = True
    if is_seen.all() and not config.allow_seen:
        raise ConfigError(f"all {len(indices)} frames of split {config.split!r} were in the checkpoint's training data; "
                          "choose another split or store, or pass --allow-seen to score them marked as seen")
    if not config.allow_seen:
        indices, is_seen = indices[~is_seen], is_seen[~is_seen]
    if config.limit and len(indices) > config.limit:
        chosen = np.linspace(0, len(indices) - 1, config.limit).round().astype(int)
        indices, is_seen = indices[chosen], is_seen[chosen]
    return indices, is_seen


def shuffled_patches(color: Tensor, frame_ids: Tensor, patch: int) -> Tensor:
    """Each picture's patches in another order: the colours stay, the picture goes."""
    patches = patchify(color, patch)
    number = torch.arange(patches.shape[1], device=color.device)
    order = torch.argsort(random_bits(stream("shuffle"), frame_ids[:, None], number[None]), dim=1)
    patches = patches.gather(1, order[..., None].expand_as(patches))
    return unpatchify(patches, (color.shape[-2] // patch, color.shape[-1] // patch), patch)


def color_variants(batch: Batch, other: Tensor | None, patch: int) -> dict[str, Tensor]:
    """The counterfactual colours: grey, the frame's own patches shuffled, another frame's (``other``, if there is one)."""
    variants = {"grey": torch.full_like(batch.color, 0.5),
                "shuffled": shuffled_patches(batch.color, batch.frame_ids, patch)}
    return variants if other is None else {**variants, "another frame's": other}


def partners(indices: np.ndarray, sequences: list[str]) -> np.ndarray | None:
    """For each frame another one half of the set away, of another sequence where there is one; None for a single frame.

    A neighbour would not do: it shows the same things from nearly the same place.
    """
    count = len(indices)
    if count < 2:
        return None
    chosen = []
    for i in range(count):
        places = [(i + count // 2 + k) % count for k in range(count)]
        best = next((p for p in places if sequences[p] != sequences[i]), None)
        chosen.append(places[0] if best is None and places[0] != i else (places[1] if best is None else best))
    return indices[chosen]


def evaluate(model: Mask3D, record: dict[str, Any], store, config: EvaluateConfig = EvaluateConfig(),
             device: torch.device | str = "cpu", progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Measure a checkpoint and its opponents.

    Args:
        model, record: as ``load_model`` gave them; ``record["extras"]["mean_map"]`` is the opponent with no depth.
        store: a prepared store.
        config: protocol.
        device: where the model runs.
        progress: called with (done, total) frames.

    Returns:
        Plain JSON values: the protocol in words, and for each pair of ratios the scores with intervals, the paired
        differences, and whether the model beats every opponent (interval excludes 0).

    Raises:
        ConfigError: an impossible protocol, an empty split, frames seen in training, or a model without depth.
    """
    found = config.problems(model.config.inputs)
    if "depth" not in model.config.targets:
        found.append("this model predicts no depth (model.targets has no depth); evaluate has nothing to score")
    if found:
        raise ConfigError(found)
    indices, is_seen = choose_frames(store, record, config)
    sequences = [store.sequence(int(i)) for i in indices]
    tables = {pair: FrameScores() for pair in config.ratios}
    others = partners(indices, sequences)
    model = copy.deepcopy(model).to(device).eval()  # the caller's stays where it is
    done, size = 0, 8
    for start in range(0, len(indices), size):
        chosen = indices[start:start + size]
        batch = fixed_batch(store, chosen, model.config.image_size, device)
        other = None if others is None else fixed_batch(store, others[start:start + size], model.config.image_size,
                                                        device).color
        for pair, scores in tables.items():
            _score_batch(model, record, batch, other, pair, config, scores, sequences[start:start + size])
        done += len(chosen)
        if progress:
            progress(done, len(indices))
    results = [_summary(pair, scores) for pair, scores in tables.items()]
    return {"protocol": _protocol(model, config, store), "checkpoint": {k: record.get(k) for k in (
        "step", "frames_seen", "code_version")}, "data": {
            "fingerprint": store.fingerprint, "source": store.header.source, "split": config.split,
            "split_kind": store.header.split_kind, "frames": len(indices), "sequences": len(set(sequences)),
            "frames_seen_in_training": int(is_seen.sum())}, "config": asdict(config), "results": results}


def _protocol(model: Mask3D, config: EvaluateConfig, store) -> str:
    height, width = model.config.image_size
    return (f"hidden valid pixels at {height}x{width}, averaged per frame and over {config.draws} mask draw(s), no scale "
            f"alignment, truth beyond {config.max_depth:g} m left out; 95 % intervals resample sequences; split "
            f"{config.split} of {store.header.split_kind}")


@torch.inference_mode()
def _score_batch(model: Mask3D, record: dict[str, Any], batch: Batch, other: Tensor | None, pair: tuple[float, float],
                 config: EvaluateConfig, scores: FrameScores, sequences: list[str]) -> None:
    patch, inputs = model.config.patch, model.config.inputs
    grid = (batch.depth.shape[1] // patch, batch.depth.shape[2] // patch)
    frames = [str(i) for i in batch.frame_ids.tolist()]
    mean_map = record.get("extras", {}).get("mean_map")
    for draw in range(config.draws):
        masks = Masks.random(pair, batch.frame_ids, batch.epochs + draw, batch.is_valid, patch, config.seed)
        hidden = to_pixels(masks.depth, grid, patch)
        if "depth" not in inputs:
            hidden = torch.ones_like(hidden)
        counted = counted_pixels(batch.depth, batch.is_valid, hidden, config.max_depth)

        def predict(color: Tensor, shown: Masks = masks) -> Tensor:
            return model(color, batch.depth, batch.is_valid, batch.intrinsics, shown).depth

        def score(name: str, prediction: Tensor, is_fallback: Tensor | None = None) -> None:
            values = depth_metrics(prediction, batch.depth, counted)
            values = {k: values[k] for k in METRIC_NAMES}
            if name == MODEL:
                values |= seam_error(prediction, batch.depth, counted, patch)
            scores.add(name, values, frames, sequences, draw, is_fallback)

        score(MODEL, predict(batch.color))
        if "rgb" in inputs and pair[0] < 1:
            for name, color in color_variants(batch, other, patch).items():
                score(f"{MODEL}, colour {name}", predict(color))
            if "depth" in inputs and pair[1] < 1:
                score(f"{MODEL}, no colour", predict(batch.color, replace(masks, rgb=torch.ones_like(masks.rgb),
                                                                          rgb_count=0)))
        if not config.opponents:
            continue
        fallback = _without_depth(model, mean_map, batch)
        if "depth" in inputs and pair[1] < 1:
            color_shown = ~to_pixels(masks.rgb, grid, patch)
            for name in OPPONENTS:
                score(name, *opponent(name, batch.depth, batch.is_valid & ~hidden, batch.color, color_shown, fallback))
        elif mean_map is not None:
            score("mean map", fallback)


def _without_depth(model: Mask3D, mean_map: Tensor | None, batch: Batch) -> Tensor:
    """What to say of a frame with nothing known, (b, h, w) metres: the training set's mean map, or its mean depth."""
    target = model.config.target
    if mean_map is not None:
        return MeanMap(mean_map, target.reference_focal, 0).predict(batch.intrinsics, tuple(batch.depth.shape[1:]))
    space = depth_space(target, batch.depth, torch.zeros_like(batch.is_valid), batch.intrinsics, model.depth_mean,
                        model.depth_std)
    return space.decode(torch.zeros_like(batch.depth))


def _summary(pair: tuple[float, float], scores: FrameScores) -> dict[str, Any]:
    table = {name: {metric: scores.estimate(name, metric).as_dict() for metric in scores.metrics(name)}
             for name in scores.predictors}
    opponents = [name for name in scores.predictors if not name.startswith(MODEL)]
    paired = {name: scores.difference(MODEL, name, "abs_rel").as_dict() for name in scores.predictors if name != MODEL}
    beats = {name: scores.beats(MODEL, name) for name in opponents}
    return {"ratios": list(pair), "scores": table, "abs_rel_minus": paired, "beats": beats,
            "fallbacks": {name: scores.fallbacks(name) for name in opponents if scores.fallbacks(name)},
            "beats_every_opponent": None if not beats or None in beats.values() else all(beats.values())}


def table_text(result: dict[str, Any]) -> str:
    """The results as lines for a terminal; the best AbsRel of each block is marked."""
    data = result["data"]
    lines = [f"{data['frames']} frames of {data['sequences']} sequence(s), {result['protocol']}"]
    if data["frames_seen_in_training"]:
        lines.append(f"WARNING: {data['frames_seen_in_training']} of these frames were in the training data")
    for block in result["results"]:
        lines += ["", f"hidden: {block['ratios'][0]:.0%} of RGB, {block['ratios'][1]:.0%} of depth patches",
                  f"{'':32}{'AbsRel':>24}{'RMSE m':>9}{'MAE m':>9}{'delta1':>9}   Mask3D minus this"]
        best = min((v["abs_rel"]["mean"] for v in block["scores"].values() if v["abs_rel"]["mean"] is not None),
                   default=None)
        if best is None:
            lines.append(" nothing to score: no hidden pixel was measured")
            continue
        for name, values in block["scores"].items():
            error = values["abs_rel"]
            band = "" if error["low"] is None else f" [{error['low']:.4f}, {error['high']:.4f}]"
            mark = "*" if error["mean"] == best else " "
            numbers = "".join(f"{values[m]['mean']:>9.4f}" for m in ("rmse", "mae", "delta1"))
            difference = block["abs_rel_minus"].get(name)
            words = "" if difference is None else f"   {difference['mean']:+.4f}" + (
                "" if difference["low"] is None else f" [{difference['low']:+.4f}, {difference['high']:+.4f}]")
            lines.append(f"{mark}{name:31}{error['mean']:>8.4f}{band:16}{numbers}{words}")
        seams = block["scores"][MODEL]
        if seams.get("seam_excess_mm", {}).get("mean") is not None:
            lines.append(f" seam: {seams['seam_excess_mm']['mean']:.1f} mm more error across patch borders than inside")
    lines.append("")
    words = {e["abs_rel"]["words"] for b in result["results"] for e in b["scores"].values()} - {""}
    return "\n".join(lines + sorted(words))
