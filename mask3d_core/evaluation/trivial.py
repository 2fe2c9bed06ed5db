"""What the trivial answer scores on a fine-tuning run's validation frames: the line that a curve has to pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from mask3d_core.batches import AugmentConfig, StoreBatches
from mask3d_core.evaluation.downstream import MAJORITY, MEAN_MAP
from mask3d_core.evaluation.opponents import MeanMap
from mask3d_core.evaluation.segmentation import SegmentationScores
from mask3d_core.frames import IGNORE_LABEL
from mask3d_core.models.config import DepthTarget
from mask3d_core.tasks.depth import score_depth
from mask3d_core.training.finetune_config import FinetuneConfig
from mask3d_core.training.finetuning import LABELS, STATISTICS_FRAMES, labelled_share
from mask3d_core.training.held_out import held_out, part_of
from mask3d_core.training.statistics import gather_statistics

BATCH = 32  # frames at a time


@dataclass(frozen=True)
class TrivialAnswer:
    """An answer that needs no network.

    Args:
        name: in words.
        score: mIoU (segment) or AbsRel (depth) on the validation frames that the run itself scores.
    """

    name: str
    score: float


def validation_trivial(config: FinetuneConfig) -> TrivialAnswer | None:
    """The most frequent class of the used training labels everywhere; of depth the training data's mean per pixel.

    At most 256 of the used training frames are read for it, evenly spread, and the validation frames batch by batch.

    Returns:
        None for detection, and where there are no validation frames or nothing in them can be scored.

    Raises:
        ConfigError, StoreError: the data is not what the configuration says.
    """
    store, train = part_of(config, "train")
    if config.task == "detect" or not len(part_of(config, "val")[1]) or not len(train):
        return None
    used = labelled_share(store, train, config.label_fraction, config.label_seed)
    used = used[np.unique(np.linspace(0, len(used) - 1, min(STATISTICS_FRAMES, len(used))).astype(int))]
    frames = held_out(config, "val", LABELS[config.task], config.eval_frames, BATCH)
    if config.task == "segment":
        return _most_frequent(store, used, frames)
    reader = StoreBatches(store, used, BATCH, config.image_size, AugmentConfig.none(), config.fit.seed,
                          is_whole=config.view == "whole")
    sample = [reader.frames(used[i:i + BATCH]) for i in range(0, len(used), BATCH)]
    found = gather_statistics(sample, DepthTarget(representation="log", reference_focal=config.depth.reference_focal))
    mean_map = MeanMap(found.mean_map, config.depth.reference_focal, found.frames)
    scores, _ = score_depth(lambda batch: mean_map.predict(batch.intrinsics, tuple(batch.depth.shape[1:])), frames, config.depth)
    return _answer(MEAN_MAP, np.nanmean(scores["abs_rel"]) if np.isfinite(scores["abs_rel"]).any() else np.nan)


def _most_frequent(store, used: np.ndarray, frames) -> TrivialAnswer | None:
    names = tuple(store.header.class_names)
    counts = np.zeros(256, np.int64)
    for index in used:
        counts += np.bincount(store.semantic[index].ravel(), minlength=256)
    favourite = int(counts[:IGNORE_LABEL].argmax())
    if favourite >= len(names):  # labels that do not fit; the pre-flight says so
        return None
    scores = SegmentationScores(names)
    for batch, sequences in frames:
        scores.add(torch.full_like(batch.semantic, favourite), batch.semantic, sequences)
    return _answer(f"{MAJORITY} ({names[favourite]})", scores.scores()["miou"])


def _answer(name: str, score: float) -> TrivialAnswer | None:
    return TrivialAnswer(name, float(score)) if np.isfinite(score) else None


__all__ = ["TrivialAnswer", "validation_trivial"]
