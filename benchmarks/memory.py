"""Memory and time against the number of frames in a store: opening it, the first batch, then random batches.

    python -m benchmarks.memory [--quick] [--out FILE] [--counts 1000 1000000]

The pictures are sparse files, so a million frames (430 GB as they count themselves) take no room; what is measured is
the store, not the disk. Every size has a process of its own. "anonymous" is memory that this process alone holds;
"mapped" are pages of the store's files, which the system drops when it needs room.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks import write, write_columns

HEIGHT, WIDTH, BATCH = 256, 336, 32


def sparse_store(path: Path, count: int) -> Path:
    """A store of empty frames that takes no room on a disk with sparse files."""
    path.mkdir()
    for name, size in (("color.u8", 3), ("depth.u16", 2)):
        with open(path / name, "wb") as file:
            file.truncate(count * HEIGHT * WIDTH * size)
    write_columns(path, count, HEIGHT, WIDTH, sequences=max(1, count // 100), has_holes=True)
    return path


def resident() -> dict[str, float] | None:
    """Megabytes of this process: anonymous and mapped; None where the system does not tell."""
    try:
        with open("/proc/self/status") as file:
            found = dict(line.split(":", 1) for line in file)
    except OSError:
        return None
    return {name: int(found[key].split()[0]) / 1024 for name, key in (("anonymous", "RssAnon"), ("mapped", "RssFile"))
            if key in found}


def measure(path: Path, batches: int) -> dict[str, Any]:
    """In a fresh process: open the store, make the first training batch, then read more at random."""
    from mask3d_core.batches import StoreBatches
    from mask3d_core.store import Store

    torch.set_num_threads(1)
    before, start = resident(), time.perf_counter()
    store = Store(path)
    opened = time.perf_counter()
    after_opening = resident()
    source = StoreBatches(store, store.indices("train"), BATCH, (240, 320))
    source.read(0)
    first, after_first = time.perf_counter(), resident()
    for step in range(1, batches + 1):
        source.read(step * 997)
    done, after = time.perf_counter(), resident()

    def grown(now: dict[str, float] | None) -> dict[str, float] | None:
        return None if now is None or before is None else {k: round(now[k] - before[k], 1) for k in now}

    return {"open_ms": 1000 * (opened - start), "first_batch_ms": 1000 * (first - opened),
            "batch_ms_per_frame": 1000 * (done - first) / batches / BATCH, "memory_open_mb": grown(after_opening),
            "memory_first_batch_mb": grown(after_first), "memory_after_mb": grown(after), "batches": batches}


def main() -> None:
    """Parse, measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a thousand and a million frames, few batches")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--counts", nargs="+", type=int, default=None)
    parser.add_argument("--batches", type=int, default=None)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)  # the process that measures one store
    arguments = parser.parse_args()
    batches = arguments.batches or (5 if arguments.quick else 30)
    if arguments.one:
        print(json.dumps(measure(arguments.one, batches)))
        return
    counts = arguments.counts or ([1000, 1_000_000] if arguments.quick else [1000, 10_000, 100_000, 1_000_000])
    found, summary = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for count in counts:
            try:
                path = sparse_store(Path(folder) / str(count), count)
            except OSError as problem:  # no sparse files, or none so large
                summary[f"{count:,} frames"] = f"left out: this disk cannot hold it as a sparse file ({problem.strerror})"
                continue
            done = subprocess.run([sys.executable, "-m", "benchmarks.memory", "--one", str(path), "--batches", str(batches)],
                                  capture_output=True, text=True, cwd=Path(__file__).resolve().parents[1])
            if done.returncode:
                raise SystemExit(f"measuring {count} frames failed:\n{done.stderr[-2000:]}")
            found[str(count)] = one = json.loads(done.stdout.splitlines()[-1])
            memory = one["memory_after_mb"]
            words = "memory unknown" if memory is None else ", ".join(f"{value:.0f} MB {name}" for name, value in memory.items())
            summary[f"{count:,} frames: open, first batch, random frame"] = (
                f"{one['open_ms']:.1f} ms, {one['first_batch_ms']:.0f} ms, {one['batch_ms_per_frame']:.2f} ms")
            summary[f"{count:,} frames: memory after {batches + 1} batches of {BATCH}"] = words
    write(arguments.out, "memory", "cpu", summary, counts=found, frame=[HEIGHT, WIDTH], batch=BATCH)


if __name__ == "__main__":
    main()
