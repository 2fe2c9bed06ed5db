"""``mask3d probe``: from the name of a start to the bench's result, with the rows that stand beside it, and its record."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch

from mask3d_core import __version__
from mask3d_core.evaluation.bench.config import BenchConfig
from mask3d_core.evaluation.bench.entries import untrained_twin
from mask3d_core.evaluation.bench.frames import BenchFrames
from mask3d_core.evaluation.bench.result import BenchResult
from mask3d_core.evaluation.bench.run import bench_encoders
from mask3d_core.evaluation.features import RGBEncoder
from mask3d_core.models.starts import Start, open_start
from mask3d_core.shipped import shipped
from mask3d_core.training.checkpoint import stem

TWIN = "untrained, same shape"
REFERENCES = ("micro", "micro-mae", "tiny", "tiny-mae")  # checkpoints in data/checkpoints, for rows to compare with


@dataclass(frozen=True)
class Bench:
    """The rows of one ``mask3d probe``.

    Args:
        name: of the start's row.
        start: it.
        references: name to start. missing: reference rows whose checkpoint is not here.
    """

    name: str
    start: Start
    references: dict[str, Start]
    missing: tuple[str, ...] = ()


def open_bench(start: str, config: BenchConfig = BenchConfig(), references: bool = True) -> Bench:
    """Open a start and the reference rows.

    Args:
        start: as ``open_start`` reads it: "timm:<name>", "random:<name>", or a checkpoint.
        config: protocol; its size is what position codes are made for.
        references: whether the shipped checkpoints stand beside it.

    Raises:
        ConfigError, CheckpointError: as ``open_start``.
    """
    opened = open_start(start, config.size, config.cell)
    found, missing = {}, []
    for bare in REFERENCES if references else ():
        name, path = f"{bare}, as shipped", shipped("data", "checkpoints") / bare
        if not path.with_suffix(".safetensors").is_file():
            missing.append(name)
        elif stem(start).resolve() != path.resolve():
            found[name] = open_start(str(path), config.size, config.cell)
    name = str(opened.record["start"])
    return Bench(name if name not in found else f"{name} (this one)", opened, found, tuple(missing))


def run_bench(bench: Bench, frames: BenchFrames, config: BenchConfig = BenchConfig(), device: torch.device | str = "cpu",
              progress: Callable[[str, int, int], None] | None = None) -> BenchResult:
    """Measure a start, its untrained twin, the references and the opponents on the same frames.

    Args:
        bench: :func:`open_bench`.
        frames: ``rooms_frames()`` or ``store_frames(path)``.
        device: where the encoders run; everything else stays on the CPU.
        progress: called with (name of the row, frames done, frames in all).
    """
    place = torch.device(device)
    twin = untrained_twin(bench.start, config.size)
    return bench_encoders({bench.name: _encoder(bench.start, bench.name, place)}, frames, config,
                          opponents={TWIN: RGBEncoder(twin.vit.to(place), twin.color_mean, twin.color_std, TWIN)},
                          references={name: _encoder(start, name, place) for name, start in bench.references.items()},
                          records={bench.name: bench.start.record, **{n: s.record for n, s in bench.references.items()}},
                          progress=progress)


def _encoder(start: Start, name: str, device: torch.device) -> RGBEncoder:
    return RGBEncoder(start.vit.to(device), start.color_mean, start.color_std, name)


def record_of(result: BenchResult, command: str, start: Start | None = None, seconds: float = 0.0,
              cpu_seconds: float = 0.0) -> dict[str, Any]:
    """The result as plain JSON values, with the command, versions and hardware.

    Args:
        command: that was typed.
        start: that was measured.
        seconds, cpu_seconds: that everything took, of wall clock and of this process on all cores.
    """
    return {"command": command, "version": __version__, "date": time.strftime("%Y-%m-%d"), "machine": _machine(),
            "seconds": round(seconds, 1), "cpu_seconds": round(cpu_seconds, 1),
            "start": None if start is None else _without_frames(start.record), **result.as_dict()}


def _without_frames(record: dict[str, Any]) -> dict[str, Any]:
    """A start's record without the long list of what it was trained on."""
    data = {key: value for key, value in record.get("data", {}).items() if key not in ("sequences", "source")}
    return {**{key: value for key, value in record.items() if key != "data"}, **({"data": data} if data else {})}


def _machine() -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"processor": processor(), "cores": cores, "threads": torch.get_num_threads(), "versions": {
        "python": platform.python_version(), "torch": torch.__version__, "timm": timm.__version__, "numpy": np.__version__}}


def processor() -> str:
    """The processor's name where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
