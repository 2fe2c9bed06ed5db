"""Scores of a fine-tuned model on held-out frames, with the trivial answers on the same pixels and the protocol in words."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mask3d_core.batches import Batch
from mask3d_core.errors import ConfigError
from mask3d_core.evaluation.downstream_detect import detect_protocol, detection_lines, score_detections
from mask3d_core.evaluation.opponents import MeanMap
from mask3d_core.evaluation.segmentation import METRICS as SEGMENT_METRICS
from mask3d_core.evaluation.segmentation import SegmentationScores, most_frequent
from mask3d_core.evaluation.statistics import interval, paired_interval
from mask3d_core.files import write_json
from mask3d_core.frames import IGNORE_LABEL
from mask3d_core.progress import Bar
from mask3d_core.store import Store
from mask3d_core.tasks.depth import METRICS as DEPTH_METRICS
from mask3d_core.tasks.depth import crop_of, eigen_box, score_depth, shown_part
from mask3d_core.tasks.segment import score_segments
from mask3d_core.training.checkpoint import read_json
from mask3d_core.training.config import from_dict
from mask3d_core.training.finetune_config import FinetuneConfig
from mask3d_core.training.held_out import HeldOut, held_out, nothing_to_score, part_of
from mask3d_core.training.precision import parse_device

MAJORITY, MEAN_MAP = "most frequent class", "training data's mean per pixel"


@dataclass(frozen=True)
class ScoreConfig:
    """What is scored.

    Args:
        split: "test", "val" or "train".
        limit: at most this many frames, evenly spaced; 0 = all.
        batch_size: frames at a time.
    """

    split: str = "test"
    limit: int = 0
    batch_size: int = 8


def evaluate_finetuned(model: torch.nn.Module, record: dict[str, Any], config: ScoreConfig = ScoreConfig(), data: str = "",
                       device: torch.device | str = "cpu", show: bool = False) -> dict[str, Any]:
    """Score a fine-tuned model.

    Args:
        model, record: as ``load_finetuned`` gave them.
        config: which frames.
        data: another prepared store with the labels of the task; "": the data that the model's own configuration names.

    Returns:
        Plain JSON values: "protocol" (task, classes, size, split, selection rule, labels used), "scores" by answer ("model"
        and the trivial one), each metric with its interval, "difference" of the two.

    Raises:
        ConfigError: an empty split, other classes than the model's, or frames that the model or its start was trained on.
    """
    from mask3d_core.training.finetuning import LABELS

    training = from_dict(FinetuneConfig, record["training"])
    labels = LABELS[training.task]
    if data:
        training = replace(training, data=data, validation_data="", test_data="", hold_out=(), leave_out=())
    frames = held_out(training, config.split, labels, config.limit, config.batch_size, device)
    store = frames.store
    refuse_seen(store, frames.indices, record)
    model = model.to(device).eval()
    score = {"segment": _score_segments, "depth": _score_depth, "detect": score_detections}[training.task]
    with torch.inference_mode(), Bar(f"scoring {config.split}", len(frames), show=show) as bar:
        result = score(model, record, training, frames, bar)
    return {"protocol": protocol(training, record, frames, config), **result}


def score_run(run: str | Path, split: str = "test", device: str | None = None, show: bool = False, limit: int = 0) -> str:
    """Score a finished run as its configuration says, write ``scores.json`` (of another split than test ``scores-SPLIT.json``)
    into it, and give the table.

    Args:
        run: the run folder.
        split: "test" or "val".

    Raises:
        ConfigError, CheckpointError: see :func:`evaluate_finetuned`.
    """
    from mask3d_core.training.finetuned import load_finetuned

    run = Path(run)
    training = from_dict(FinetuneConfig, read_json(run / "config.json"), str(run / "config.json"))
    model, record = load_finetuned(run)
    result = evaluate_finetuned(model, record, ScoreConfig(split, limit), "", parse_device(device), show)
    out = run / ("scores.json" if split == "test" else f"scores-{split}.json")
    write_json(out, result)
    return result_text(result) + f"\nwritten to {out}"


def refuse_seen(store: Store, indices: np.ndarray, record: dict[str, Any]) -> None:
    """Frames that were trained on are not scored.

    Raises:
        ConfigError: there are such frames.
    """
    from mask3d_core.training.finetuning import seen_frames

    seen = seen_frames(store, indices, record)
    if seen.any():
        raise ConfigError(f"{int(seen.sum())} of {len(seen)} frames were trained on by this model or its start; score other frames")


def protocol(training: FinetuneConfig, record: dict[str, Any], frames: HeldOut, config: ScoreConfig) -> dict[str, Any]:
    """What a number must be printed with."""
    data, store = record["data"], frames.store
    return {"task": training.task, "start": data["start"].get("start", training.start), "classes": list(record.get("class_names", [])),
            "size": list(training.image_size), "labels_at": f"{training.image_size[0]}x{training.image_size[1]}, nearest neighbour",
            "split": config.split, "split_rule": f"all but {', '.join(training.hold_out)} train" if training.hold_out else store.header.split_rule,
            "frames": len(frames), "store": store.fingerprint,
            "view": frames.view, "view_share": frames.share, "view_words": frames.words,
            "training_frames": data["frames"], "label_fraction": training.label_fraction, "label_seed": training.label_seed,
            "selection": selection_rule(record, training), "steps": record.get("step"), "head": training.head.kind,
            **(_depth_protocol(training, frames) if training.task == "depth" else {}),
            **(detect_protocol(training, record) if training.task == "detect" else {})}


def _depth_protocol(training: FinetuneConfig, frames: HeldOut) -> dict[str, Any]:
    """Range and crop as they were taken, and the share of the stored frame that could be scored."""
    crop, (height, width) = crop_of(training.depth, frames.store), frames.size
    top, bottom, left, right = eigen_box(shown_part(frames), frames.size) if crop == "eigen" else (0, height, 0, width)
    is_nyu = frames.store.first_source.get("source") == "nyuv2"
    return {"depth": {**asdict(training.depth), "crop": crop}, "is_usual_crop": not is_nyu or crop == "eigen",
            "scored_share": frames.share * (bottom - top) * (right - left) / (height * width)}


def selection_rule(record: dict[str, Any], training: FinetuneConfig) -> str:
    """How these weights were chosen, in words."""
    if training.select == "best" and "best" in record:
        best = record["best"]
        return f"best {best['metric']} on validation ({best['value']:.4f} at step {best['step']})"
    return f"last step ({record.get('step')})"


def label_counts(training: FinetuneConfig) -> np.ndarray:
    """Pixels per class in the training labels that were used; int64 (classes,)."""
    from mask3d_core.training.finetuning import labelled_share

    store, train = part_of(training, "train")
    used = labelled_share(store, train, training.label_fraction, training.label_seed)
    counts = np.zeros(len(store.header.class_names), np.int64)
    for index in used:
        labels = store.semantic[index]
        counts += np.bincount(labels[labels != IGNORE_LABEL], minlength=len(counts))[:len(counts)]
    return counts


def _score_segments(model, record: dict[str, Any], training: FinetuneConfig, frames: HeldOut, bar: Bar) -> dict[str, Any]:
    names, store = tuple(record["class_names"]), frames.store
    if tuple(store.header.class_names) != names:
        raise ConfigError(f"the model knows {len(names)} classes ({', '.join(names[:4])}, ...), the store "
                          f"{len(store.header.class_names)} ({', '.join(store.header.class_names[:4])}, ...): not the same ones")
    answers = {"model": _counted(model, bar)}
    original = from_dict(FinetuneConfig, record["training"])
    if Path(original.data).is_dir() and Store(original.data).fingerprint == record["data"]["fingerprint"]:
        favourite = most_frequent(label_counts(original))  # where the training labels are still there
        answers[f"{MAJORITY} ({names[favourite]})"] = lambda color: torch.nn.functional.one_hot(
            torch.full((len(color), *color.shape[-2:]), favourite, device=color.device), len(names)).permute(0, 3, 1, 2)
    found: dict[str, SegmentationScores] = {name: score_segments(answer, frames, names) for name, answer in answers.items()}
    if not any(matrix.sum() for matrix in found["model"].matrices.values()):
        raise ConfigError(nothing_to_score(frames.store, len(frames), "has a class"))
    result: dict[str, Any] = {"scores": {name: {**s.as_dict(), **{f"{m}_interval": s.estimate(m).as_dict() for m in SEGMENT_METRICS}}
                                         for name, s in found.items()},
                              "matrices": {name: matrix.tolist() for name, matrix in found["model"].matrices.items()}}
    for name in list(found)[1:]:
        result["difference"] = {"to": name, "miou": found["model"].difference(found[name]).as_dict()}
    return result


def _counted(model, bar: Bar):
    def answer(color):
        bar.advance(len(color))
        return model(color)

    return answer


def _score_depth(model, record: dict[str, Any], training: FinetuneConfig, frames: HeldOut, bar: Bar) -> dict[str, Any]:
    def predicted(batch: Batch):
        bar.advance(len(batch))
        return model.metres(model(batch.color), batch.intrinsics)

    answers = {"model": predicted}
    values = record.get("extras", {}).get("mean_map")
    if values is not None:
        mean_map = MeanMap(values, training.depth.reference_focal, 0)
        answers[MEAN_MAP] = lambda batch: mean_map.predict(batch.intrinsics.cpu(), tuple(batch.depth.shape[1:])).to(batch.depth.device)
    found = {name: score_depth(answer, frames, training.depth) for name, answer in answers.items()}
    if not np.isfinite(found["model"][0]["abs_rel"]).any():
        raise ConfigError(nothing_to_score(frames.store, len(frames), "has a depth in range"))
    sequences = found["model"][1]
    result: dict[str, Any] = {"scores": {
        name: {metric: {"mean": float(np.nanmean(v[metric])) if np.isfinite(v[metric]).any() else None,
                        "interval": interval(v[metric], sequences).as_dict()} for metric in DEPTH_METRICS}
        for name, (v, _) in found.items()}}
    result |= {"frames": {metric: [float(value) if math.isfinite(value) else None for value in values]  # None: nothing to score in it
                          for metric, values in found["model"][0].items()}, "sequences": sequences}
    if MEAN_MAP in found:
        result["difference"] = {"to": MEAN_MAP, "abs_rel": paired_interval(
            found["model"][0]["abs_rel"], found[MEAN_MAP][0]["abs_rel"], sequences).as_dict()}
    return result


def result_text(result: dict[str, Any]) -> str:
    """The scores as a table with the protocol above it."""
    p = result["protocol"]
    words = {"segment": f"{len(p['classes'])} classes, labels at {p['labels_at']}; one confusion matrix over all frames",
             "detect": f"labels at {p['labels_at']}"}.get(p["task"])
    if p["task"] == "depth":
        clamp = "predictions clamped to it" if p["depth"].get("clamp") else "predictions not clamped"
        crop = p["depth"]["crop"]
        if crop == "eigen" and "scored_share" in p:
            crop += f" ({p['scored_share']:.0%} of the stored frame)"
        elif not p.get("is_usual_crop", True):
            crop += " (NYUv2's usual protocol scores the Eigen crop only)"
        words = f"truth up to {p['depth']['max_depth']:g} m, {clamp}, crop {crop}, no scale alignment, at {p['labels_at']}"
    words = f"{words}; scored: {p.get('view_words', 'the centre crop')}"
    if p["split"] == "val" and p["selection"].startswith("best"):
        words += "; the weights were chosen on these very frames, which flatters them"
    lines = [f"{p['task']} from {p['start']}, {p['training_frames']} labelled frames ({p['label_fraction']:.0%} of the training "
             f"sequences), head {p['head']}, {p['selection']}",
             f"{p['frames']} frames of split {p['split']} ({p['split_rule']}), {words}"]
    if p["task"] == "detect":
        return "\n".join([*lines, *detection_lines(result)])
    width = max(len(name) for name in result["scores"])
    if p["task"] == "segment":
        lines.append(f"{'':{width}}  {'mIoU':>24}  {'mean acc.':>9}  {'pixel acc.':>10}")
        for name, s in result["scores"].items():
            lines.append(f"{name:{width}}  {_with_interval(s['miou'], s['miou_interval']):>24}  {_number(s['mean_accuracy']):>9}  "
                         f"{_number(s['pixel_accuracy']):>10}")
        lines.append("IoU: " + ", ".join(f"{k} {_number(v)}" for k, v in result["scores"]["model"]["iou"].items()))
    else:
        lines.append(f"{'':{width}}  {'AbsRel':>24}  {'RMSE (m)':>9}  {'delta1':>7}")
        for name, s in result["scores"].items():
            lines.append(f"{name:{width}}  {_with_interval(s['abs_rel']['mean'], s['abs_rel']['interval']):>24}  "
                         f"{_number(s['rmse']['mean']):>9}  {_number(s['delta1']['mean']):>7}")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.3f}"


def _with_interval(mean: float | None, found: dict[str, Any]) -> str:
    if found["low"] is None:
        return f"{_number(mean)} ({found['words']})"
    return f"{_number(mean)} [{_number(found['low'])}, {_number(found['high'])}]"


