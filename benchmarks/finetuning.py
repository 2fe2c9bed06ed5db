"""The fine-tuning step: the engine beside the bare step, for each task and head; memory of scoring as frames grow.

    python -m benchmarks.finetuning [--quick] [--out FILE] [--threads 1]

The bare step is forward, loss, backward and AdamW on a ready batch; the engine's clips, guards against NaN, scales rates
layer by layer and logs as well. timm's own model with a linear classifier at the same size stands beside them, so that one
sees what the head costs; beside detection torchvision's Mask R-CNN of a ResNet-50. Scoring streams: its peak memory over 16
and over 64 frames should be the same.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import resource
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F

from benchmarks import take_turns, temporary_store, write
from mask3d_core.batches import StoreBatches
from mask3d_core.models.heads import HeadConfig
from mask3d_core.models.starts import open_start
from mask3d_core.tasks.depth import Depth
from mask3d_core.tasks.detect import Detect
from mask3d_core.tasks.segment import Segment, score_segments
from mask3d_core.training.config import FitConfig
from mask3d_core.training.finetune_config import FinetuneConfig, finetune_config
from mask3d_core.training.finetuning import build_dense, build_detector
from mask3d_core.training.engine import Engine, plain_attention
from mask3d_core.training.held_out import HeldOut
from mask3d_core.training.precision import autocast, cpu_has_bf16
from mask3d_core.training.schedule import parameter_groups

NAMES = tuple(f"class {k}" for k in range(13))
CASES = (("segment", "linear"), ("segment", "dpt"), ("depth", "dpt"), ("detect", "Mask R-CNN"))
DETECTED = 4  # frames of a detection step


def build(task: str, head: str, precision: str, batch_size: int):
    """A task of the shipped size with a random start."""
    fit = FitConfig(steps=1000, batch_size=batch_size, learning_rate=1e-4, precision=precision)
    config = finetune_config(task, fit=fit, drop_path=0.0, **({} if task == "detect" else {"head": HeadConfig(head)}))
    start = open_start("random", config.image_size)
    if task == "detect":
        return config, Detect(config, build_detector(config, start, NAMES), None, NAMES, {})
    model = build_dense(config, start, 1 if task == "depth" else len(NAMES))
    return config, (Depth(config, model, None, {}) if task == "depth" else Segment(config, model, None, NAMES, {}))


def bare_step(config: FinetuneConfig, task, batch):
    """Forward, loss, backward and AdamW, as a call without arguments; with the attention that the engine takes."""
    if config.fit.precision == "bf16":
        plain_attention(task.model)
    optimizer = torch.optim.AdamW(parameter_groups(task.model, config.fit.weight_decay), lr=1e-6, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(config.fit.precision, batch.color.device):
            loss = task.loss(task.model, batch, 0)
        (loss.total / loss.count).backward()
        optimizer.step()

    return step


def classifier_step(precision: str, batch):
    """timm's vit_tiny at this size with one linear layer over its patches: the least that a step can be."""
    vit = timm.create_model("vit_tiny_patch16_224", img_size=tuple(batch.color.shape[-2:]), num_classes=0)
    head = torch.nn.Linear(vit.embed_dim, len(NAMES))
    optimizer = torch.optim.AdamW([*vit.parameters(), *head.parameters()], lr=1e-6, fused=True)
    truth = batch.semantic[:, 8::16, 8::16].flatten(1)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(precision, batch.color.device):
            value = head(vit.forward_features(batch.color)[:, vit.num_prefix_tokens:])
        F.cross_entropy(value.float().transpose(1, 2), truth).backward()
        optimizer.step()

    return step


def with_objects(batch, frames: int):
    """The first frames with two rectangles as objects, and the same as torchvision wants them."""
    size = batch.color.shape[-2:]
    semantic, instance = torch.zeros((frames, *size), dtype=torch.long), torch.zeros((frames, *size), dtype=torch.long)
    boxes = torch.tensor([[30.0, 40.0, 150.0, 160.0], [180.0, 60.0, 300.0, 220.0]])
    for number, (left, top, right, bottom) in enumerate(boxes.int().tolist(), 1):
        semantic[:, top:bottom, left:right], instance[:, top:bottom, left:right] = 3 + number, number
    masks = torch.stack([instance[0] == number for number in (1, 2)]).to(torch.uint8)
    targets = [{"boxes": boxes, "labels": torch.tensor([4, 5]), "masks": masks} for _ in range(frames)]
    return dataclasses.replace(batch[:frames], semantic=semantic, instance=instance), targets


def detector_step(precision: str, batch, targets):
    """torchvision's own Mask R-CNN (ResNet-50 and feature pyramid, from noise) on the same frames."""
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    model = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=1 + len(NAMES), min_size=batch.color.shape[-2],
                                  max_size=batch.color.shape[-1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(precision, batch.color.device):
            losses = model(list(batch.color), targets)
        sum(losses.values()).backward()
        optimizer.step()

    return step


def peak_megabytes() -> float:
    """Most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(batch_size: int, repeats: int) -> tuple[dict[str, str], dict[str, Any]]:
    """Every task's step by the engine and bare, taking turns."""
    summary: dict[str, str] = {}
    found: dict[str, Any] = {"batch_size": batch_size, "cases": {}}
    precision = "bf16" if cpu_has_bf16() else "float32"
    with temporary_store(4 * batch_size) as store:
        source = StoreBatches(store, store.indices("train"), batch_size, (240, 320))
        batch = source.batch(0)
        batch = dataclasses.replace(batch, semantic=(batch.color.mean(1) * 12.99).long())
        summary["scoring, peak memory"], found["scoring"] = scoring(store, batch_size)  # first: a peak never falls again
        for task_name, head in CASES:
            frames = min(DETECTED, batch_size) if task_name == "detect" else batch_size
            config, task = build(task_name, head, precision, frames)
            engine = Engine(task, config.fit, Path("."), torch.device("cpu"), frames)
            used, targets = with_objects(batch, frames) if task_name == "detect" else (batch, [])
            endless = itertools.repeat(used)
            other = detector_step(precision, used, targets) if targets else classifier_step(precision, used)
            times = take_turns({"bare": bare_step(*build(task_name, head, precision, frames), used),
                                "engine": lambda: engine.train_step(endless), "other": other}, repeats, patience=120)
            ratio = times["engine"]["cpu_ms"] / times["bare"]["cpu_ms"]
            found["cases"][f"{task_name}/{head}"] = {"times": times, "ratio": ratio, "precision": precision, "batch_size": frames}
            what = "torchvision's Mask R-CNN of a ResNet-50" if targets else "timm's vit_tiny with a linear layer"
            summary[f"{task_name}, {head}: step / bare step, {precision} (aim <= 1.10)"] = (
                f"{ratio:.3f} in CPU time; {times['engine']['cpu_ms'] / frames:.1f} ms per frame, {what} "
                f"{times['other']['cpu_ms'] / frames:.1f}")
    return summary, found


class Labelled:
    """A store that gives colour as labels, so that scoring has something to score."""

    def __init__(self, store, count: int):
        self.store, self.semantic = store, (store.color[..., 0] // 20)
        self.header, self.path, self.color, self.depth, self.intrinsics = (
            store.header, store.path, store.color, store.depth, store.intrinsics)

    def sequence(self, index: int) -> str:
        """Every frame a room of its own."""
        return str(index)


def scoring(store, batch_size: int) -> tuple[str, dict[str, float]]:
    """Peak memory of the process before scoring, after few frames and after four times as many."""
    config, task = build("segment", "linear", "float32", batch_size)
    labelled, peaks = Labelled(store, len(store)), [peak_megabytes()]
    indices = store.indices("all")
    for times in (1, 4):
        frames = HeldOut(labelled, indices.repeat(times), config.image_size, ("semantic",), batch_size)
        with torch.inference_mode():
            score_segments(task.model.eval(), frames, NAMES)
        peaks.append(peak_megabytes())
    return (f"{peaks[0]:.0f} MB before, {peaks[1]:.0f} MB after {len(indices)} frames, {peaks[2]:.0f} MB after {4 * len(indices)} more",
            {"before": peaks[0], "few": peaks[1], "many": peaks[2], "frames": len(indices)})


def main() -> None:
    """Parse, measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few repeats, small batches")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    summary, values = measure(*((2, 2) if arguments.quick else (16, 7)))
    write(arguments.out, "finetuning", "cpu", summary, threads=arguments.threads, **values)


if __name__ == "__main__":
    main()
