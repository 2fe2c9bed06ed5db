"""What a plan measures: memory, work and time of real training steps, and how fast the disk takes a checkpoint."""

from __future__ import annotations

import math
import os
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from mask3d_core.batches import Batch
from mask3d_core.tasks.pretrain import Pretrain, pretrain_loss
from mask3d_core.training.compilation import explain_failure
from mask3d_core.training.log import Progress
from mask3d_core.training.engine import Engine
from mask3d_core.training.precision import autocast

_SAMPLE_BYTES = 64 * 2**20  # written once to see how fast the disk is


@dataclass(frozen=True)
class FrameCost:
    """What one frame costs in a training step.

    Args:
        flops: of matrix products and attention, forward and backward, by pair of ratios.
        saved_bytes: kept between forward and backward, of the pair that keeps most.
        seconds: by pair, of one frame alone (an upper bound of a frame in a batch).
    """

    flops: dict[tuple[float, float], float]
    saved_bytes: int
    seconds: dict[tuple[float, float], float]


@dataclass(frozen=True)
class Steps:
    """Measured steps.

    Args:
        seconds: of each step.
        warmup_seconds: of all the steps before, compilation included.
        pairs: the ratios that each step drew.
        waited: share of the time spent waiting for batches (on a CPU also making them).
    """

    seconds: tuple[float, ...]
    warmup_seconds: float
    pairs: tuple[tuple[float, float], ...]
    waited: float


def synchronize(device: torch.device) -> None:
    """Wait for a GPU; nothing on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _status(field: str, where: str = "/proc/self/status") -> int | None:
    """Bytes that Linux tells in a line like "VmHWM: 123 kB"; None elsewhere."""
    try:
        with open(where) as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field + ":"))
    except (OSError, StopIteration, ValueError):
        return None


def reset_peak_memory(device: torch.device) -> None:
    """Begin to count anew; on a CPU only Linux can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass


def peak_memory(device: torch.device) -> int | None:
    """Bytes at the peak: what PyTorch allocated on a GPU, else this process's resident set; None where nobody tells."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = _status("VmHWM")
    if peak is None:
        try:
            import resource
        except ImportError:  # Windows
            return None
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return peak


def memory_limit(device: torch.device) -> int | None:
    """Bytes that this process can come to hold in all: what is free now and what it holds already."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    free, own = _status("MemAvailable", "/proc/meminfo"), _status("VmRSS")
    return None if free is None or own is None else free + own


def frame_cost(task: Pretrain, batch: Batch, precision: str) -> FrameCost:
    """Forward and backward of the first frame of a batch at every pair of ratios that the run draws.

    Args:
        task: with its model on the batch's device.
        batch: at least one frame.
        precision: "bf16" or "float32".
    """
    one, model = batch[slice(0, 1)], task.model
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    flops: dict[tuple[float, float], float] = {}
    seconds: dict[tuple[float, float], float] = {}
    most = 0
    for pair in dict.fromkeys(task.config.mask.ratios):
        saved: dict[int, int] = {}

        def remember(tensor: torch.Tensor, saved=saved) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                saved[storage.data_ptr()] = storage.nbytes()
            return tensor

        def forward_backward(pair=pair) -> None:
            with autocast(precision, one.color.device):
                masks = task.masks(one, pair, task.config.mask.seed)
                output = model(one.color, one.depth, one.is_valid, one.intrinsics, masks)
                loss = pretrain_loss(task.config, one, masks, output)
            loss.total.backward()

        with FlopCounterMode(display=False) as counter, torch.autograd.graph.saved_tensors_hooks(remember, lambda t: t):
            forward_backward()
        flops[pair] = float(counter.get_total_flops())
        start = time.perf_counter()
        forward_backward()
        synchronize(one.color.device)
        seconds[pair] = time.perf_counter() - start
        most = max(most, sum(saved.values()))
        model.zero_grad(set_to_none=True)
    return FrameCost(flops, most, seconds)


class _Clocked:
    """An iterator, and the seconds spent in asking it."""

    def __init__(self, source):
        self.source, self.seconds = source, 0.0

    def __iter__(self):
        return self

    def __next__(self):
        start = time.perf_counter()
        item = next(self.source)
        self.seconds += time.perf_counter() - start
        return item


def measure_steps(engine: Engine, batches, warmup: int, count: int, progress: Progress) -> Steps:
    """Run real training steps.

    Args:
        engine: its weights change.
        batches: has ``iterate()``.
        warmup, count: steps not measured, and measured.
        progress: advanced once per step.

    Raises:
        Mask3DError: torch.compile does not work here.
        torch.OutOfMemoryError: on a GPU that is too small.
    """
    device, draw = engine.device, engine.task.config.mask.draw
    is_gpu = device.type == "cuda"

    def mark():
        if not is_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    with closing(batches.iterate()) as iterator:
        source = _Clocked(iterator)
        start = time.perf_counter()
        try:
            for _ in range(warmup):
                engine.train_step(source)
                progress.advance(engine.step)
        except Exception as problem:
            explain_failure(problem, engine.config.compile)
            raise
        synchronize(device)
        warmed = time.perf_counter() - start
        source.seconds, pairs, marks = 0.0, [], [mark()]
        for _ in range(count):
            pairs.append(draw(engine.step))
            engine.train_step(source)
            marks.append(mark())
            progress.advance(engine.step)
        synchronize(device)
    seconds = tuple(a.elapsed_time(b) / 1000 if is_gpu else b - a for a, b in zip(marks[:-1], marks[1:], strict=True))
    return Steps(seconds, warmed, tuple(pairs), min(1.0, source.seconds / sum(seconds)))


def expected_seconds(steps: Steps, work: dict[tuple[float, float], float], expected_work: float) -> tuple[float, float]:
    """Seconds of a mean step of the run, from a few steps that drew other ratios than the mean.

    The measured times are moved along the line through (work, time) to the expected work, a control variate.

    Args:
        steps: what was measured.
        work: of each pair of ratios, in any unit.
        expected_work: mean over the run.

    Returns:
        The mean and half the width of its 95 % interval (0 for a single step).
    """
    seconds = np.array(steps.seconds)
    drawn = np.array([work[pair] for pair in steps.pairs])
    spread = float(((drawn - drawn.mean()) ** 2).sum())
    slope = float(((drawn - drawn.mean()) * seconds).sum()) / spread if spread > 0 else 0.0
    moved = seconds + max(0.0, slope) * (expected_work - drawn)
    mean = float(np.clip(moved.mean(), seconds.min(), seconds.max()))
    half = 1.96 * float(moved.std(ddof=1)) / math.sqrt(len(moved)) if len(moved) > 1 else 0.0
    return mean, half


def disk_speed(folder: Path | None, size: int) -> float:
    """Bytes per second that reach the disk, from one nameless file that is gone at once.

    Args:
        folder: on the disk in question; None: the system's temporary folder.
        size: bytes that a run would write; at most 64 MiB of them are written.
    """
    sample = os.urandom(2**20)
    blocks = max(1, min(size, _SAMPLE_BYTES) // len(sample))
    with tempfile.TemporaryFile(dir=folder) as file:
        start = time.perf_counter()
        for _ in range(blocks):
            file.write(sample)
        file.flush()
        os.fsync(file.fileno())
        return blocks * len(sample) / max(1e-9, time.perf_counter() - start)
