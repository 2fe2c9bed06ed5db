"""Speed and memory. ``python -m benchmarks`` runs every file of this folder and prints one table.

Each benchmark is a module with its own command line (``--quick``, ``--out FILE``) that writes one JSON record: what was
measured, and on what. Times are medians of calls that take turns (A B A B ...), so that other work on the machine falls
on all of them alike; beside the wall clock stands the CPU time of this process, which other work hardly touches.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mask3d_core.plan_measurements import synchronize
from mask3d_core.store import COLUMNS, FORMAT_VERSION, Store, StoreHeader, header_text


def processor() -> str:
    """The processor's name where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def machine(device: torch.device | str = "cpu") -> dict[str, Any]:
    """On what, with what and when something was measured."""
    import timm

    device = torch.device(device)
    return {"device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu", "processor": processor(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "threads": torch.get_num_threads(),
            "load_average": [round(x, 2) for x in os.getloadavg()] if hasattr(os, "getloadavg") else None,
            "date": time.strftime("%Y-%m-%d"), "versions": {"python": platform.python_version(), "numpy": np.__version__,
                                                            "torch": torch.__version__, "timm": timm.__version__}}


def write(path: Path | None, name: str, device: torch.device | str, summary: dict[str, str], **values: Any) -> None:
    """Print the summary; write the record where asked to.

    Args:
        path: JSON file, or None.
        name: of the benchmark.
        summary: label to value in words, what the table of all benchmarks shows.
        values: everything measured, as plain JSON values.
    """
    for label, words in summary.items():
        print(f"  {label:<58} {words}", flush=True)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        record = {"benchmark": name, **machine(device), "summary": summary, **values}
        path.write_text(json.dumps(record, indent=1) + "\n")
        print(f"wrote {path}", flush=True)


def take_turns(calls: dict[str, Callable[[], Any]], repeats: int, device: torch.device | str = "cpu", warmup: int = 1,
               patience: float = 60.0) -> dict[str, dict[str, float]]:
    """Time calls that take turns.

    Args:
        calls: name to a call without arguments.
        repeats, warmup: rounds that count, and rounds before.
        device: waited for around each call.
        patience: seconds after which no further round begins, once three have been measured.

    Returns:
        By name: ``median_ms`` and ``fastest_ms`` by the wall clock, ``cpu_ms``, the median of this process's CPU time.
    """
    device = torch.device(device)
    wall: dict[str, list[float]] = {name: [] for name in calls}
    cpu: dict[str, list[float]] = {name: [] for name in calls}
    until = time.perf_counter() + patience
    for number in range(warmup + repeats):
        if number >= warmup + min(3, repeats) and time.perf_counter() > until:
            break
        for name, call in calls.items():
            synchronize(device)
            start, start_cpu = time.perf_counter(), time.process_time()
            call()
            synchronize(device)
            if number >= warmup:
                wall[name].append(1000 * (time.perf_counter() - start))
                cpu[name].append(1000 * (time.process_time() - start_cpu))
    return {name: {"median_ms": round(statistics.median(wall[name]), 3), "fastest_ms": round(min(wall[name]), 3),
                   "cpu_ms": round(statistics.median(cpu[name]), 3), "repeats": len(wall[name])} for name in calls}


def peak_tflops(device: torch.device, size: int | None = None, seconds: float = 0.5) -> float:
    """TFLOP/s of one large bf16 matrix product here and now: the peak that shares are given of.

    Args:
        size: side of the matrices; by default 8192 on a GPU, 512 on a CPU.
        seconds: how long to measure.
    """
    size = size or (8192 if device.type == "cuda" else 512)
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    best, until = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < until or not best:
        synchronize(device)
        start = time.perf_counter()
        for _ in range(8):
            a @ b
        synchronize(device)
        best = max(best, 8 * 2 * size**3 / (time.perf_counter() - start) / 1e12)
    return best


def write_columns(path: Path, count: int, height: int, width: int, sequences: int = 1, has_holes: bool = False) -> None:
    """Columns and header of a store whose pictures are written by the caller (before or after)."""
    shapes = {**{name: (kind, (count, *shape)) for name, (kind, shape) in COLUMNS.items()},
              "frame_name": ("S12", (count,)), "sequence_names": ("S8", (sequences,))}
    for name, (kind, shape) in shapes.items():
        column = np.lib.format.open_memmap(path / f"{name}.npy", "w+", kind, shape)
        if name == "intrinsics":
            column[:] = np.float32([0.8 * width, 0.8 * width, (width - 1) / 2, (height - 1) / 2])
        column.flush()
    header = StoreHeader(FORMAT_VERSION, height, width, count, 4000.0, {"source": "benchmark"}, (), ("color", "depth"),
                         "sequences", "all", {"train": count, "val": 0, "test": 0, "unused": 0}, sequences, has_holes, 1.0,
                         0.0, (), "0" * 16)
    (path / "header.json").write_text(header_text(header))


@contextlib.contextmanager
def temporary_store(frames: int, device: torch.device | str | None = None, height: int = 256, width: int = 336,
                    chunk: int = 256) -> Iterator[Store]:
    """A store in a temporary folder, gone afterwards.

    Args:
        frames, height, width: its size.
        device: renders rooms there (no holes); None: noise with 5 % holes, which costs the same to read.
        chunk: frames at a time.
    """
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        color = np.memmap(path / "color.u8", np.uint8, "w+", shape=(frames, height, width, 3))
        depth = np.memmap(path / "depth.u16", np.uint16, "w+", shape=(frames, height, width))
        for start in range(0, frames, chunk):
            part = slice(start, min(frames, start + chunk))
            if device is None:
                shape = (part.stop - start, height, width)
                color[part] = generator.integers(0, 256, (*shape, 3), np.uint8)
                depth[part] = generator.integers(4000, 20000, shape, np.uint16) * (generator.random(shape) > 0.05)
                continue
            from mask3d_core.sources.rooms import RoomsConfig, render_rooms

            rooms = torch.arange(part.start, part.stop)
            made = render_rooms(rooms, torch.zeros_like(rooms), RoomsConfig(height=height, width=width), device)
            color[part] = made.color.cpu().numpy()
            depth[part] = (made.depth.clamp(max=16) * 4000).round().int().cpu().numpy().astype(np.uint16)
        color.flush()
        depth.flush()
        del color, depth
        write_columns(path, frames, height, width, has_holes=device is None)
        yield Store(path)
