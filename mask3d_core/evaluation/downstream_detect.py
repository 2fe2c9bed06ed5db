"""Scores of a fine-tuned detector on held-out frames, with the trivial answer beside it; see ``evaluation.downstream``."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from mask3d_core.batches import Batch
from mask3d_core.errors import ConfigError
from mask3d_core.evaluation.detection import KINDS, METRICS, PROTOCOL, DetectionScores
from mask3d_core.evaluation.fixed_objects import FRAMES, fixed_objects
from mask3d_core.models.detector import Detector
from mask3d_core.progress import Bar
from mask3d_core.store import Store
from mask3d_core.tasks.detect import detect_batch, score_objects
from mask3d_core.training.config import from_dict
from mask3d_core.training.finetune_config import FinetuneConfig
from mask3d_core.training.held_out import HeldOut, part_of

FIXED = "the same objects everywhere"


def score_detections(model: Detector, record: dict[str, Any], training: FinetuneConfig, frames: HeldOut, bar: Bar
                     ) -> dict[str, Any]:
    """Score a detector and, where its training labels are still there, the trivial answer.

    Args:
        model, record: as ``load_finetuned`` gave them.
        training: its configuration, with the data that is scored.
        frames: read with "semantic" and "instance" labels.
        bar: advanced by frames.

    Returns:
        Plain JSON values: "scores" by answer, "difference" (model minus trivial answer), "fixed_objects" how many it has.

    Raises:
        ConfigError: other classes than the model's, or frames without an object.
    """
    names, smallest = tuple(record["class_names"]), training.detect.smallest
    if tuple(frames.store.header.class_names) != names:
        raise ConfigError(f"the model knows the classes {', '.join(names[:4])}, ..., the store "
                          f"{', '.join(frames.store.header.class_names[:4])}, ...: not the same ones")

    def detected(batch: Batch) -> list[list[dict[str, Any]]]:
        bar.advance(len(batch))
        return detect_batch(model, batch)

    answers, result = {"model": detected}, {}
    original = from_dict(FinetuneConfig, record["training"])
    if Path(original.data).is_dir() and Store(original.data).fingerprint == record["data"]["fingerprint"]:
        same = fixed_objects(training_frames(original, frames), model.config.things, smallest)  # the labels are still there
        answers[FIXED] = lambda batch: [same] * len(batch)
        result["fixed_objects"] = len(same)
    found: dict[str, DetectionScores] = {
        name: score_objects(answer, frames, names, model.config.things, smallest) for name, answer in answers.items()}
    if not found["model"].objects:
        raise ConfigError(f"these {len(frames)} frames of {frames.store.path} have no object of the classes that are scored, so they cannot "
                          "be scored; many data sets keep the labels of their test part: score another one (--split val)")
    result["scores"] = {name: scores.as_dict() for name, scores in found.items()}
    if FIXED in found:
        result["difference"] = {"to": FIXED, **{metric: found["model"].difference(found[FIXED], metric).as_dict()
                                                for metric in ("mask_ap", "box_ap")}}
    return result


def training_frames(training: FinetuneConfig, like: HeldOut) -> HeldOut:
    """The labelled training frames of a run without augmentation, at most ``FRAMES``, evenly spaced."""
    from mask3d_core.training.finetuning import labelled_share

    store, train = part_of(training, "train")
    used = labelled_share(store, train, training.label_fraction, training.label_seed)
    return replace(like, store=store, indices=used[np.unique(np.linspace(0, len(used) - 1, min(FRAMES, len(used))).astype(int))])


def detect_protocol(training: FinetuneConfig, record: dict[str, Any]) -> dict[str, Any]:
    """What the protocol of a detection score says beyond that of every task."""
    return {"head": f"Mask R-CNN on a simple feature pyramid, width {training.detect.width}", "things": list(record["things"]),
            "detect": asdict(training.detect), "metric": PROTOCOL}


def detection_lines(result: dict[str, Any]) -> list[str]:
    """The scores as lines of text, below the protocol."""
    model, p = result["scores"]["model"], result["protocol"]
    lines = [f"{model['objects']} objects of {len(p['things'])} class(es), {', '.join(p['things'])}, of at least "
             f"{p['detect']['smallest']} pixels; {model['ignored_share']:.0%} of the pixels unlabelled, not scored", PROTOCOL]
    heads = ["", *(f"{kind} AP{name[2:]}" for kind, name in (metric.split("_") for metric in METRICS))]
    rows = [heads, *([name, *(_cell(scores, metric) for metric in METRICS)] for name, scores in result["scores"].items())]
    widths = [max(len(row[k]) for row in rows) for k in range(len(heads))]
    lines += [f"{row[0]:{widths[0]}}  " + "  ".join(f"{cell:>{w}}" for cell, w in zip(row[1:], widths[1:])) for row in rows]
    if len(p["things"]) > 1:
        lines += [f"{kind} AP: " + ", ".join(f"{k} {_number(v)}" for k, v in model["classes"][kind].items()) for kind in KINDS]
    return lines


def _cell(scores: dict[str, Any], metric: str) -> str:
    found = scores[f"{metric}_interval"]
    if not metric.endswith("_ap"):
        return _number(scores[metric])
    if found["low"] is None:
        return f"{_number(scores[metric])} ({found['words']})"
    return f"{_number(scores[metric])} [{_number(found['low'])}, {_number(found['high'])}]"


def _number(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.3f}"
