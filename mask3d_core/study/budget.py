"""What a study will cost, measured in a few steps before it costs anything, and a study that fits a budget."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mask3d_core.batches import Batch
from mask3d_core.models.dense import DenseConfig, DenseModel
from mask3d_core.models.mask3d import Mask3D
from mask3d_core.prepare import PrepareConfig
from mask3d_core.store import HEADER
from mask3d_core.study.config import StudyConfig, is_pretrained_here, label_of
from mask3d_core.study.data import room_sources, store_paths
from mask3d_core.study.left import Left, everything, left_of, planned_runs
from mask3d_core.study.runner import Study
from mask3d_core.tasks.pretrain import Pretrain
from mask3d_core.tasks.segment import segment_loss
from mask3d_core.training.config import pretrain_config
from mask3d_core.training.precision import autocast, choose_precision, parse_device

FEWEST_SEEDS = 3  # with fewer, Student's t says next to nothing
DRAWS = 8  # steps over which FLOPs are averaged where a start draws its ratios from several


@dataclass(frozen=True)
class StudyCost:
    """What is left of a study will cost on this machine.

    Args:
        config: the study.
        pretrain_seconds: start to seconds of one pre-training.
        finetune_seconds: of one fine-tuning of length 1 with its score.
        gflops: start to GFLOP per frame of a pre-training step, forwards and backwards.
        workers: runs at a time.
        render_seconds: of the rooms that are not there yet.
        study: whose record and weights say what need not be run again; None: everything is run.
    """

    config: StudyConfig
    pretrain_seconds: dict[str, float]
    finetune_seconds: float
    gflops: dict[str, float]
    workers: int
    render_seconds: float = 0.0
    study: Study | None = None

    @property
    def left(self) -> Left:
        """What has still to be run."""
        return everything(self.config) if self.study is None else left_of(self.study.with_config(self.config))

    @property
    def seconds(self) -> float:
        """Of what is left; a length that is not chosen yet is counted as the longest."""
        left = self.left
        pretraining = sum(count * self.pretrain_seconds[start] for start, count in left.pretrainings.items())
        return (pretraining + self.finetune_seconds * left.lengths) / self.workers + self.render_seconds

    def text(self) -> str:
        """Runs and time as a table."""
        config, left = self.config, self.left
        frames = config.pretrain_steps * config.pretrain_batch
        what = "folds" if config.folds else "label fractions"
        lines = [f"{config.name}: {config.question}", f"endpoint: {config.endpoint}",
                 f"{len(config.starts)} starts x {len(config.conditions)} {what} x {config.seeds} seeds, "
                 f"{config.tune.trials_words(config.starts)} on validation: {planned_runs(config)} runs, {self.workers} at a time"]
        for start, seconds in self.pretrain_seconds.items():
            lines.append(f"  pre-training {label_of(start)}: {frames:,} frames, {self.gflops[start] * frames / 1e3:,.0f} TFLOP, "
                         f"{seconds / 60:.1f} min a seed, {left.pretrainings[start]} to run")
        longest = max(length for start in config.starts for length in config.tune.lengths_of(start))
        lines.append(f"  fine-tuning and scoring: {self.finetune_seconds / 60:.1f} min, up to {longest:g} times as long "
                     f"where validation chooses that; {left.finetunings} to run")
        if self.render_seconds:
            lines.append(f"  rendering rooms: {self.render_seconds / 60:.1f} min, one after the other")
        lines.append(f"at most {self.seconds / 60:.0f} min on this machine, if nothing else runs on it; resumable at any moment")
        return "\n".join(lines)


def measure(config: StudyConfig, device: str | None = None, workers: int = 1, steps: int = 3, study: Study | None = None) -> StudyCost:
    """Measure a few steps of every start on random frames, with the threads that each run will have, and the rendering of a room.

    Args:
        device: "cpu" or "cuda".
        workers: runs at a time.
        steps: of each, after one to warm up.
        study: what it has need not be run again.
    """
    place, threads = parse_device(device), torch.get_num_threads()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // max(1, workers)))
    try:
        pretraining = {start: _pretraining_step(config, start, place, steps) * config.pretrain_steps
                       for start in config.starts if is_pretrained_here(start)}
        finetuning = _finetuning_seconds(config, place, steps)
        rendering = _rendering_seconds(config, study)
    finally:
        torch.set_num_threads(threads)
    return StudyCost(config, pretraining, finetuning, gflops_of(config), workers, rendering, study)


def gflops_of(config: StudyConfig) -> dict[str, float]:
    """Start to GFLOP per frame of a pre-training step, forwards and backwards, counted by torch."""
    found, frames = {}, 2
    size = pretrain_config(config.preset).model.image_size
    for start in config.starts:
        if is_pretrained_here(start):
            made = config.pretraining(start, 0, Path("."))
            task, batch = Pretrain(made, Mask3D(made.model), None, {}), random_batch(frames, size, torch.device("cpu"))
            draws = 1 if len(made.mask.ratios) == 1 else DRAWS
            found[start] = sum(_flops(lambda step=step: task.loss(task.model, batch, step)) for step in range(draws)) / draws / frames / 1e9
    return found


def _pretraining_step(config: StudyConfig, start: str, place: torch.device, steps: int) -> float:
    made = config.pretraining(start, 0, Path("."))
    task = Pretrain(made, Mask3D(made.model).to(place), None, {})
    batch = random_batch(config.pretrain_batch, made.model.image_size, place)
    return _seconds(lambda step: task.loss(task.model, batch, step), place, steps)


def _finetuning_seconds(config: StudyConfig, place: torch.device, steps: int) -> float:
    """Of one run of length 1 with its score."""
    base = pretrain_config(config.preset).model
    model = DenseModel(DenseConfig(base.rgb, base.image_size, base.patch, outputs=13, head=config.head)).to(place)
    if config.freeze == -1:
        model.encoder.requires_grad_(False)
    batch = random_batch(config.finetune_batch, base.image_size, place)
    step = _seconds(lambda _: segment_loss(model(batch.color), batch.semantic), place, steps)
    scored = config.rooms.test_rooms * config.rooms.held_out_views / config.finetune_batch
    return step * (config.finetune_steps + scored / (1 if config.freeze == -1 else 3))  # backwards costs about twice as much as forwards


def _rendering_seconds(config: StudyConfig, study: Study | None) -> float:
    """Of the rooms that are not there, from as many frames as are rendered at a time."""
    sources = room_sources(config)
    if study is not None:
        paths = store_paths(config, study.folder.parent / "rooms")
        sources = {part: source for part, source in sources.items() if not (paths[part] / HEADER).is_file()}
    if not sources:
        return 0.0
    source = next(iter(sources.values()))
    source.read_batch(range(source.config.views_per_room))  # the first room of a process takes several times as long
    frames = min(len(source), PrepareConfig.chunk_frames)
    began = time.perf_counter()
    source.read_batch(range(frames))
    return (time.perf_counter() - began) / frames * sum(len(source) for source in sources.values())


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
        share = max(0.0, limit - cost.render_seconds) / max(1e-9, cost.seconds - cost.render_seconds)
        config = replace(cost.config, pretrain_steps=max(1, int(cost.config.pretrain_steps * share)),
                         finetune_steps=max(1, int(cost.config.finetune_steps * share)))
        said.append(f"{share:.0%} of the steps, to fit {minutes:g} min: too short a study may tell nothing apart"
                    + (f"; rendering the rooms alone takes {cost.render_seconds / 60:.0f} min" if cost.render_seconds > limit / 2 else ""))
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


__all__ = ["StudyCost", "fit_budget", "gflops_of", "measure", "random_batch"]
