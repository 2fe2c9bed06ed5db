"""What continued pre-training on somebody's own frames changed: the probe before and after, on those frames and on the bench."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from mask3d_core.errors import ConfigError
from mask3d_core.evaluation.bench.config import METRICS, READOUTS, BenchConfig, main_metric
from mask3d_core.evaluation.bench.entries import untrained_twin
from mask3d_core.evaluation.bench.frames import BenchFrames
from mask3d_core.evaluation.bench.report import TWIN
from mask3d_core.evaluation.bench.result import BenchResult
from mask3d_core.evaluation.bench.run import bench_encoders
from mask3d_core.evaluation.features import RGBEncoder
from mask3d_core.models.starts import open_start

BEFORE, AFTER = "before", "after"


def before_and_after(before: str, after: str | Path, frames: BenchFrames, config: BenchConfig = BenchConfig(),
                     device: torch.device | str = "cpu", progress: Callable[[str, int, int], None] | None = None) -> BenchResult:
    """Probe the encoder that a run began from and the one it ended with, beside their untrained twin and the opponents.

    Args:
        before: what ``pretrain --init`` was given: a checkpoint, or "timm:<name>".
        after: the run folder.
        frames: ``rooms_frames()``, or ``store_frames(path)`` of the user's store; its test frames were trained on by neither.
        config: protocol.
        device: where the encoders run.
        progress: called with (name of the row, frames done, frames in all).

    Raises:
        ConfigError: the run began from random weights, for which there is no before; or one of them has no RGB encoder.
    """
    if before == "random":
        raise ConfigError("this run began from random weights, so there is no before; use mask3d probe RUN")
    starts = {BEFORE: open_start(before, config.size, config.cell), AFTER: open_start(str(after), config.size, config.cell)}
    twin = untrained_twin(starts[AFTER], config.size)
    encoders = {name: RGBEncoder(start.vit.to(device), start.color_mean, start.color_std, name) for name, start in starts.items()}
    return bench_encoders(encoders, frames, config, records={name: start.record for name, start in starts.items()}, progress=progress,
                          opponents={TWIN: RGBEncoder(twin.vit.to(device), twin.color_mean, twin.color_std, TWIN)})


def difference_text(result: BenchResult) -> str:
    """After minus before, task by task, with paired intervals."""
    lines = []
    for task in result.tasks:
        for readout in READOUTS[task]:
            if result.has(AFTER, task, readout) and result.has(BEFORE, task, readout):
                metric = METRICS[task][main_metric(task)]
                better = "lower" if metric.lower_is_better else "higher"
                lines.append(f"  {task}, {readout}: {metric.label} {result.difference(AFTER, BEFORE, task, readout)} ({better} is better)")
    return "\n".join(["after minus before, paired:", *lines])
