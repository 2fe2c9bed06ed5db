"""What a study will cost, measured in a few steps before it costs anything, and a study that fits a budget."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mask3d_core.batches import Batch
from mask3d_core.models.dense import DenseConfig, DenseModel
from mask3d_core.models.mask3d import Mask3D
from mask3d_core.study.config import StudyConfig, is_pretrained_here, label_of
from mask3d_core.study.runner import planned_runs
from mask3d_core.tasks.pretrain import Pretrain
from mask3d_core.tasks.segment import segment_loss
from mask3d_core.training.config import pretrain_config
from mask3d_core.training.precision import autocast, choose_precision, parse_device

FEWEST_SEEDS = 3  # with fewer, Student's t says next to nothing
RENDERED = 40.0  # frames a second and core at the study's size, where the rooms are not there yet (benchmarks/rooms.py)


@dataclass(frozen=True)
class StudyCost:
    """What a study will cost on this machine.

    Args:
        config: the study.
        pretrain_seconds: start to seconds of one pre-training.
        finetune_seconds: of one fine-tuning of length 1 with its score.
        gflops: start to GFLOP per frame of a pre-training step, forwards and backwards.
        workers: runs at a time.
        rooms: frames to render.
    """

    config: StudyConfig
    pretrain_seconds: dict[str, float]
    finetune_seconds: float
    gflops: dict[str, float]
    workers: int
    rooms: int

    @property
    def seconds(self) -> float:
        """Of the whole study; a chosen length is counted as the longest."""
        config, tune = self.config, self.config.tune
        cells = len(config.starts) * len(config.conditions)
        longer = sum(length for length in tune.lengths if length != 1.0)
        trials = cells * (len(tune.learning_rates) * len(tune.layer_decays) + longer)
        finals = cells * config.seeds * max(tune.lengths)
        return (config.seeds * sum(self.pretrain_seconds.values()) + self.finetune_seconds * (trials + finals)
                + self.rooms / RENDERED) / self.workers

    def text(self) -> str:
        """Runs and time as a table."""
        config = self.config
        frames = config.pretrain_steps * config.pretrain_batch
        what = "folds" if config.folds else "label fractions"
        lines = [f"{config.name}: {config.question}", f"endpoint: {config.endpoint}",
                 f"{len(config.starts)} starts x {len(config.conditions)} {what} x {config.seeds} seeds, "
                 f"{config.tune.trials_of(config.reference)} trials each on validation: {planned_runs(config)} runs, {self.workers} at a time"]
        for start, seconds in self.pretrain_seconds.items():
            lines.append(f"  pre-training {label_of(start)}: {frames:,} frames, {self.gflops[start] * frames / 1e3:,.0f} TFLOP, "
                         f"{seconds / 60:.1f} min a seed")
        lines.append(f"  fine-tuning and scoring: {self.finetune_seconds / 60:.1f} min, up to {max(config.tune.lengths):g} times as long "
                     "where validation chooses that")
        lines.append(f"at most {self.seconds / 60:.0f} min on this machine, if nothing else runs on it; resumable at any moment")
        return "\n".join(lines)


def measure(config: StudyConfig, device: str | None = None, workers: int = 1, steps: int = 3) -> StudyCost:
    """Measure a few steps of every start on random frames.

    Args:
        device: "cpu" or "cuda".
        workers: runs at a time.
        steps: of each, after one to warm up.
    """
    place = parse_device(device)
    size = pretrain_config(config.preset).model.image_size
    pretraining, gflops = {}, {}
    for start in config.starts:
        if is_pretrained_here(start):
            made = config.pretraining(start, 0, Path("."))
            task = Pretrain(made, Mask3D(made.model).to(place), None, {})
            batch = random_batch(config.pretrain_batch, size, place)
            seconds = _seconds(lambda step: task.loss(task.model, batch, step), place, steps)
            pretraining[start] = seconds * config.pretrain_steps
            gflops[start] = _flops(lambda: task.loss(task.model, batch, 0)) / config.pretrain_batch / 1e9
    model = DenseModel(DenseConfig(pretrain_config(config.preset).model.rgb, size, pretrain_config(config.preset).model.patch,
                                   outputs=13, head=config.head)).to(place)
    batch = random_batch(config.finetune_batch, size, place)
    one = _seconds(lambda step: segment_loss(model(batch.color), batch.semantic), place, steps)
    scored = config.rooms.test_rooms * config.rooms.held_out_views / config.finetune_batch
    rooms = (config.rooms.train_rooms * config.rooms.train_views
             + (config.rooms.val_rooms + config.rooms.test_rooms) * config.rooms.held_out_views)
    return StudyCost(config, pretraining, one * (config.finetune_steps + scored / 3), gflops, workers, rooms)


def fit_budget(cost: StudyCost, minutes: float) -> tuple[StudyCost, list[str]]:
    """A study that fits: first fewer seeds, then fewer steps of everything. Says what was cut.

    Args:
        minutes: of this machine.
    """
    said, limit = [], 60.0 * minutes
    while cost.seconds > limit and cost.config.seeds > FEWEST_SEEDS:
        cost = replace(cost, config=replace(cost.config, seeds=cost.config.seeds - 1))
        said = [f"{cost.config.seeds} seeds instead of more, to fit {minutes:g} min"]
    if cost.seconds > limit:
        share = limit / cost.seconds
        config = replace(cost.config, pretrain_steps=max(1, int(cost.config.pretrain_steps * share)),
                         finetune_steps=max(1, int(cost.config.finetune_steps * share)))
        said.append(f"{share:.0%} of the steps, to fit {minutes:g} min: too short a study may tell nothing apart")
        cost = replace(cost, config=config, finetune_seconds=cost.finetune_seconds * share,
                       pretrain_seconds={k: v * share for k, v in cost.pretrain_seconds.items()})
    return cost, said


def random_batch(frames: int, size: tuple[int, int], device: torch.device) -> Batch:
    """Frames of noise, for measuring."""
    shape = (frames, *size)
    generator = torch.Generator().manual_seed(0)
    depth = 1 + 3 * torch.rand(shape, generator=generator)
    camera = torch.tensor([[0.8 * size[1], 0.8 * size[1], (size[1] - 1) / 2, (size[0] - 1) / 2]]).repeat(frames, 1)
    return Batch(torch.rand((frames, 3, *size), generator=generator), depth, torch.ones(shape, dtype=torch.bool), camera,
                 torch.arange(frames), torch.zeros(frames, dtype=torch.long), False,
                 torch.randint(0, 13, shape, generator=generator)).to(device)


def _seconds(loss: Any, place: torch.device, steps: int) -> float:
    """Of one step, forwards and backwards."""
    times = []
    for step in range(steps + 1):
        began = time.perf_counter()
        with autocast(choose_precision("auto", place), place):
            found = loss(step)
        found.total.backward()
        if place.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return sorted(times[1:])[len(times[1:]) // 2]


def _flops(loss: Any) -> float:
    """Floating-point operations of one step, by torch's own counter."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter:
        loss().total.backward()
    return float(counter.get_total_flops())


__all__ = ["StudyCost", "fit_budget", "measure", "random_batch"]
