"""What a fine-tuning will take on this machine, from a few of its own steps: time, memory, room on the disk."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mask3d_core.batches import StoreBatches
from mask3d_core.doctor.report import Finding, many
from mask3d_core.models.starts import Start
from mask3d_core.plan_measurements import memory_limit, peak_memory, reset_peak_memory, synchronize
from mask3d_core.store import Store
from mask3d_core.tasks.depth import Depth
from mask3d_core.tasks.detect import Detect
from mask3d_core.tasks.segment import Segment
from mask3d_core.training.engine import Engine
from mask3d_core.training.finetune_config import FinetuneConfig
from mask3d_core.training.finetuning import LABELS, build_dense, build_detector
from mask3d_core.training.precision import parse_device

FRAMES, STEPS = 4, 2  # of a measured step at most, and steps after one that warms up
LONG = 24 * 3600.0  # seconds from which a run on this machine is worth a second thought
PYTHON = 500e6  # bytes of a process that has only loaded torch
FULL, TIGHT = 1.0, 0.7  # shares of the memory, and of the disk, that are too much and that are worth a word


def cost_findings(config: FinetuneConfig, start: Start, store: Store, used: np.ndarray, scored: dict[str, int],
                  device: str | None, run: Path | None) -> list[Finding]:
    """Train a few steps on a model that is thrown away.

    Args:
        config: of the run. start: its encoder; its weights stay as they are.
        store, used: the labelled training frames.
        scored: frames of each evaluation ("val") and of the final score ("test").
        device: "cpu" or "cuda"; None: the GPU if there is one.
        run: the run folder, for its disk.

    Returns:
        Findings "time", "memory" and "disk".
    """
    place = parse_device(device)
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        engine, batches = _engine(config, start, store, used, place)
        step_seconds, frame_seconds, memory = _measured(engine, batches, config)
    fit = config.fit
    evaluations = 1 + _times(fit.steps, fit.eval_every)
    seconds = fit.steps * step_seconds + (evaluations * scored["val"] + scored["test"]) * frame_seconds
    load = f", with a load of {os.getloadavg()[0]:.1f} on it now" if hasattr(os, "getloadavg") else ""
    frames = min(FRAMES, fit.batch_size)
    words = (f"about {said(seconds)} on this {place.type}: {1000 * step_seconds:.0f} ms a step, "
             f"{many(evaluations, 'evaluation')} of {many(scored['val'], 'frame')} (measured: {STEPS} steps of "
             f"{many(frames, 'frame')}, {many(torch.get_num_threads(), 'thread')}{load})")
    found = [Finding("time", "warn" if seconds > LONG else "ok", words,
                     {"seconds": seconds, "step_seconds": step_seconds, "frame_seconds": frame_seconds,
                      "evaluations": evaluations})]
    return [*found, _memory(memory, place), _disk(engine, config, run)]


def _engine(config: FinetuneConfig, start: Start, store: Store, used: np.ndarray, place: torch.device
            ) -> tuple[Engine, StoreBatches]:
    names = store.header.class_names
    if config.task == "segment":
        task = Segment(config, build_dense(config, start, len(names)), None, names, {})
    elif config.task == "depth":
        task = Depth(config, build_dense(config, start, 1), None, {})
    else:
        task = Detect(config, build_detector(config, start, names), None, names, {})
    frames = min(FRAMES, config.fit.batch_size)
    fit = replace(config.fit, batch_size=frames, accumulate=1, compile=False)
    batches = StoreBatches(store, used, frames, config.image_size, config.augment, fit.seed, place, labels=LABELS[config.task])
    return Engine(task, fit, Path("."), place, frames), batches


def _measured(engine: Engine, batches: StoreBatches, config: FinetuneConfig) -> tuple[float, float, float]:
    """Seconds of a step, seconds of predicting a frame, and bytes that training needs in all."""
    place, frames = engine.device, batches.batch_size
    own = {p.untyped_storage().data_ptr() for p in engine.model.parameters()}
    saved: dict[int, int] = {}

    def remember(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    engine.model.train()
    reset_peak_memory(place)
    with closing(batches.iterate()) as source:
        with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
            engine.train_step(source)  # warms up
        synchronize(place)
        began = time.perf_counter()
        for _ in range(STEPS):
            engine.train_step(source)
        synchronize(place)
        seconds = (time.perf_counter() - began) / STEPS
        batch = next(source)
    began = time.perf_counter()
    engine.with_weights(lambda model: model(batch.color))
    synchronize(place)
    predicting = (time.perf_counter() - began) / frames
    per_step = seconds / frames * config.fit.batch_size * config.fit.accumulate
    if place.type == "cuda":
        return per_step, predicting, peak_memory(place) + sum(saved.values()) * (config.fit.batch_size / frames - 1)
    weights = sum(p.numel() * p.element_size() for p in engine.model.parameters())
    copies = 4 + bool(config.fit.ema)  # weights, gradients, two moments, averaged weights
    return per_step, predicting, PYTHON + copies * weights + 1.5 * sum(saved.values()) * config.fit.batch_size / frames


def _memory(needed: float, place: torch.device) -> Finding:
    limit = memory_limit(place)
    words, numbers = f"about {needed / 1e9:.1f} GB", {"bytes": needed, "limit": limit}
    if limit is None:
        return Finding("memory", "warn", f"{words}; this machine does not say how much it has", numbers)
    words += f" of {limit / 1e9:.1f} GB that are free"
    if needed > FULL * limit:
        return Finding("memory", "error", f"{words}: lower fit.batch_size and raise fit.accumulate by as much", numbers)
    return Finding("memory", "warn" if needed > TIGHT * limit else "ok", words, numbers)


def _disk(engine: Engine, config: FinetuneConfig, run: Path | None) -> Finding:
    fit, place = config.fit, Path.cwd() if run is None else run.absolute()
    while not place.is_dir():
        place = place.parent
    weights = sum(t.numel() * t.element_size() for t in engine.model.state_dict().values())
    learning = sum(p.numel() * p.element_size() for p in engine.parameters)
    saves = _times(fit.steps, fit.save_every)
    state = weights * (2 if fit.ema else 1) + 2 * learning
    picture = config.image_size[0] * config.image_size[1] * 5 * config.preview  # at most: colour, truth and prediction
    evaluations = 1 + _times(fit.steps, fit.eval_every)
    needed = (min(fit.keep, saves) + 1) * state + (2 if config.select == "best" else 1) * weights + evaluations * picture
    free = shutil.disk_usage(place).free
    words, numbers = f"at most {needed / 1e6:,.0f} MB of {free / 1e9:,.0f} GB that are free", {"bytes": needed, "free": free}
    if needed > FULL * free:
        return Finding("disk", "error", f"{words}: free space, or choose a run folder on another disk", numbers)
    return Finding("disk", "warn" if needed > TIGHT * free else "ok", words, numbers)


def _times(steps: int, every: int) -> int:
    """How often something happens that is done every few steps and at the end."""
    return -(-steps // every) if every else 1


def said(seconds: float) -> str:
    """Seconds in the unit that a reader wants."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


__all__ = ["cost_findings"]
