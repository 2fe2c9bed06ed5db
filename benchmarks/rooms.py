"""How fast rooms are rendered, stage by stage.

    python benchmarks/rooms.py [--device cuda] [--frames 64] [--threads 1] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import torch

from mask3d_core.sources.rooms import RoomsConfig, render_rooms
from mask3d_core.sources.rooms import lighting, render, surface

STAGES = ((render, "build_rooms"), (render, "place_cameras"), (surface, "first_hits"), (render, "find_surfaces"),
          (render, "surface_color"), (lighting, "shadowed"), (render, "light_up"), (render, "expose"), (render, "measure"))
INSIDE = {"first_hits": "find_surfaces", "shadowed": "light_up"}  # counted in its parent too


class StageClock:
    """Adds up the seconds spent in each stage; waits for the device at both ends, so use it apart from the total."""

    def __init__(self, device: torch.device):
        self.device, self.seconds, self._originals = device, {}, []

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def __enter__(self):
        for module, name in STAGES:
            original = getattr(module, name)
            self._originals.append((module, name, original))

            def timed(*args, _original=original, _name=name, **options):
                start = self._now()
                result = _original(*args, **options)
                self.seconds[_name] = self.seconds.get(_name, 0.0) + self._now() - start
                return result

            setattr(module, name, timed)
        return self

    def __exit__(self, *_):
        for module, name, original in self._originals:
            setattr(module, name, original)


def measure_rooms(config: RoomsConfig, frames: int, repeats: int, device: torch.device) -> dict:
    """Render ``frames`` frames, four views to a room, and time it.

    Returns:
        frames/s of the best repeat, milliseconds per frame and stage, and where it was measured.
    """
    index = torch.arange(frames)
    rooms, views = torch.div(index, config.views_per_room, rounding_mode="floor"), index % config.views_per_room
    render_rooms(rooms, views, config, device)  # warm up: the atlas, the allocator
    best = float("inf")
    for _ in range(repeats):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        render_rooms(rooms, views, config, device)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    with StageClock(device) as clock:
        render_rooms(rooms, views, config, device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    result = {"benchmark": "rooms", "device": name, "torch": torch.__version__, "threads": torch.get_num_threads(),
              "frames": frames, "height": config.height, "width": config.width, "furniture": config.furniture,
              "sensor": config.sensor, "frames_per_second": frames / best,
              "stage_ms_per_frame": {stage: 1000 * seconds / frames for stage, seconds in clock.seconds.items()}}
    if device.type == "cuda":
        result["peak_bytes"] = torch.cuda.max_memory_allocated(device)
    return result


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--frames", type=int, default=None, help="default: 16 on a CPU, 4096 on a GPU")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=None, help="CPU threads; default: torch's own choice")
    parser.add_argument("--height", type=int, default=240)
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--furniture", type=int, default=RoomsConfig.furniture)
    parser.add_argument("--no-sensor", dest="sensor", action="store_false")
    parser.add_argument("--json", type=Path, help="write the result here")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    frames = options.frames or (4096 if device.type == "cuda" else 16)
    config = RoomsConfig(height=options.height, width=options.width, furniture=options.furniture, sensor=options.sensor)
    result = measure_rooms(config, frames, options.repeats, device)
    print(f"{result['frames_per_second']:.1f} frames/s at {config.height}x{config.width} on {result['device']}, "
          f"{result['threads']} thread(s), furniture level {config.furniture}, sensor {'on' if config.sensor else 'off'}")
    for stage, milliseconds in result["stage_ms_per_frame"].items():
        print(f"  {'  ' if stage in INSIDE else ''}{stage:<16}{milliseconds:8.2f} ms per frame"
              + (f"  (inside {INSIDE[stage]})" if stage in INSIDE else ""))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n")
        print(f"wrote {options.json}")


if __name__ == "__main__":
    main()
