"""Time per frame on the way from files to batches: reading, fitting, preparing, reading a store at random.

    python benchmarks/data.py [PATH ...] [--out results/data_cpu.json] [--frames 24]

It draws its own frames (640x480 PNG colour and 16-bit PNG depth, noisy like a Kinect's), so nothing needs to be
downloaded; recordings of your own come beside them. One thread. Times are the fastest of three rounds, because other work on the machine only ever
adds to them; the store's files are in the page cache.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from mask3d_core.batches import StoreBatches
from mask3d_core.prepare import PrepareConfig, prepare
from mask3d_core.sources import Source
from mask3d_core.sources.folder_config import FolderConfig
from mask3d_core.sources.opening import open_path
from mask3d_core.store import COLUMNS, FORMAT_VERSION, Store, StoreHeader, header_text

ROUNDS = 3
BATCH = 32


def fastest(call, rounds: int = ROUNDS) -> float:
    """Seconds of the fastest round."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def draw_recording(folder: Path, frames: int) -> Path:
    """A folder of drawn frames with the grain of a camera, whose PNG files cost what real ones cost."""
    from PIL import Image

    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[0:480, 0:640].astype(np.float32)
    for name in ("color", "depth"):
        (folder / name).mkdir(parents=True)
    for i in range(frames):
        wave = 40 * np.sin(columns / (20 + i)) + 40 * np.cos(rows / 35)
        color = (128 + wave[..., None] + generator.normal(0, 6, (480, 640, 3))).clip(0, 255).astype(np.uint8)
        metres = 1.2 + 0.004 * rows + 0.5 * (columns > 300 + 5 * i)
        depth = np.rint(1000 * metres + generator.normal(0, 2, metres.shape)).astype(np.uint16)
        depth[generator.random(depth.shape) < 0.05] = 0
        Image.fromarray(color).save(folder / "color" / f"{i:05d}.png")
        Image.fromarray(depth).save(folder / "depth" / f"{i:05d}.png")
    FolderConfig(color="color/*.png", depth="depth/*.png", intrinsics=(525.0, 525.0, 319.5, 239.5)).save(
        folder / "mask3d_folder.json")
    return folder


class Some:
    """Frames of a source, spread over it."""

    def __init__(self, source: Source, count: int):
        self.source = source
        self.chosen = np.unique(np.linspace(0, len(source) - 1, min(count, len(source))).astype(int))

    def __len__(self) -> int:
        return len(self.chosen)

    def __getattr__(self, name):
        return getattr(self.source, name)

    def read(self, index: int):
        return self.source.read(int(self.chosen[index]))


def measure_source(path: Path, frames: int, scratch: Path) -> dict[str, float]:
    """Milliseconds per frame for each step from one recording to batches of 240x320."""
    source = Some(open_path(path), frames)
    count, numbers = len(source), {"frames": len(source)}
    numbers["read_ms"] = 1000 * fastest(lambda: [source.read(i) for i in range(count)]) / count
    read = [source.read(i) for i in range(min(count, 8))]
    numbers["fit_ms"] = 1000 * fastest(lambda: [frame.fit(256, 336) for frame in read]) / len(read)

    def prepare_anew():
        shutil.rmtree(scratch / "store", ignore_errors=True)
        prepare(source, scratch / "store", PrepareConfig(workers=1, split="train"), progress=False)

    numbers["prepare_ms"] = 1000 * fastest(prepare_anew, 2) / count
    store = Store(scratch / "store")
    numbers["bytes_per_frame_on_disk"] = sum(f.stat().st_size for f in store.path.iterdir()) // len(store)
    order = np.random.default_rng(0).integers(0, len(store), BATCH)
    numbers["store_raw_batch_ms_per_frame"] = 1000 * fastest(lambda: (store.color[order], store.depth[order])) / BATCH
    numbers["store_frame_ms"] = 1000 * fastest(lambda: [store.read(int(i)) for i in order]) / BATCH
    batches = StoreBatches(store, store.indices("train"), BATCH, (240, 320))
    numbers["store_batch_read_ms_per_frame"] = 1000 * fastest(lambda: batches.read(3)) / BATCH
    numbers["verify_MB_per_s"] = sum(f.stat().st_size for f in store.path.iterdir()) / 1e6 / fastest(store.verify)
    return {name: round(value, 3) for name, value in numbers.items()}


OPEN = """
import sys, time
sys.path.insert(0, {root!r})
from mask3d_core.store import Store
def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS"))
before, start = resident(), time.perf_counter()
store = Store({path!r})
seconds = time.perf_counter() - start
store.read(len(store) - 1), store.indices("train")
print(seconds, (resident() - before) / 1024)
"""


def make_sparse_store(path: Path, count: int, height: int = 256, width: int = 336) -> Path:
    """A store of empty frames that takes no room on a disk with sparse files."""
    path.mkdir()
    for name, size in (("color.u8", 3), ("depth.u16", 2)):
        with open(path / name, "wb") as file:
            file.truncate(count * height * width * size)
    shapes = {**{name: (kind, (count, *shape)) for name, (kind, shape) in COLUMNS.items()},
              "frame_name": ("S12", (count,)), "sequence_names": ("S8", (1000,))}
    for name, (kind, shape) in shapes.items():
        np.lib.format.open_memmap(path / f"{name}.npy", "w+", kind, shape).flush()
    header = StoreHeader(FORMAT_VERSION, height, width, count, 4000.0, {"source": "sparse"}, (), ("color", "depth"),
                         "sequences", "all", {"train": count, "val": 0, "test": 0, "unused": 0}, 1000, True, 0.0, 0.0,
                         (), "0" * 16)
    (path / "header.json").write_text(header_text(header))
    return path


def measure_opening(path: Path) -> dict[str, float]:
    """Seconds and megabytes that a fresh process needs to open a store, read a frame and list the training frames."""
    script = OPEN.format(root=str(Path(__file__).resolve().parents[1]), path=str(path))
    seconds, megabytes = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                                        check=True).stdout.split()
    return {"seconds": round(float(seconds), 4), "megabytes": round(float(megabytes), 1)}


def processor() -> str:
    """The processor's name where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    """Measure, print, and save where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, help="recordings of your own to measure as well")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--frames", type=int, default=24)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    record = {"benchmark": "data", "device": "cpu", "processor": processor(), "cores": os.cpu_count(), "threads": 1,
              "date": time.strftime("%Y-%m-%d"), "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
              "versions": {"python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__},
              "recordings": {}, "opening": {}}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for path in [draw_recording(scratch / "drawn", arguments.frames), *arguments.paths]:
            record["recordings"][path.name] = measure_source(path, arguments.frames, scratch)
            print(path.name, json.dumps(record["recordings"][path.name], indent=1), flush=True)
        for count in (1_000, 100_000, 1_000_000):
            record["opening"][str(count)] = measure_opening(make_sparse_store(scratch / f"sparse{count}", count))
            print(f"opening {count} frames:", record["opening"][str(count)], flush=True)
    record["peak_megabytes"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
