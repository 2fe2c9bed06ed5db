"""Time per picture: panels, charts, clouds of 76,800 and 300,000 points, PNG, a page.

    python benchmarks/pictures.py [--out results/pictures_cpu.json] [--repeats 15]

One thread; a drawn frame, so nothing needs to be downloaded. The first call (fonts, colour maps, imports) is not
counted. The number to stay below for the cloud: 35 to 60 ms for 300,000 points at 640x480.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path

import matplotlib
import numpy as np
import torch

from mask3d_core.frames import Intrinsics
from mask3d_viz.clouds import cloud_from_depth, linked_stills, splat, view_camera
from mask3d_viz.curves import bar_table, figure_image, loss_curve
from mask3d_viz.images import depth_image, depth_range, error_image, masked_color_image, to_png
from mask3d_viz.panels import reconstruction_panel
from mask3d_viz.html_page import Page, figure


def drawn_frame(height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, Intrinsics]:
    """Colour, depth, is_valid and camera of a corner of a room with a ball in it."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = (columns - width / 2) / width, (rows - height / 2) / width
    depth = np.minimum(3.5 / (1 + np.abs(x)), 1.2 / np.maximum(y, 1e-3))
    depth = np.where((x - 0.1) ** 2 + (y - 0.1) ** 2 < 0.02, 1.4, depth).astype(np.float32)
    is_valid = np.random.default_rng(0).random((height, width)) > 0.1
    color = np.stack([120 + 400 * x, 120 + 400 * y, 60 * depth], -1).clip(0, 255).astype(np.uint8)
    return color, depth, is_valid, Intrinsics(width * 0.82, width * 0.82, (width - 1) / 2, (height - 1) / 2)


def cases() -> dict:
    """Name to a call without arguments."""
    color, depth, is_valid, camera = drawn_frame(240, 320)
    generator = np.random.default_rng(0)
    masks = [generator.random((15, 20)) < 0.8 for _ in range(2)]
    prediction = depth + generator.normal(0, 0.05, depth.shape).astype(np.float32)
    limits = depth_range(depth, is_valid)

    def panel(layout="row"):
        return reconstruction_panel(color, depth, is_valid, prediction, *masks, is_pasted=False, layout=layout,
                                    scores={"AbsRel": 0.05, "delta1": 0.97})

    sheet = panel()
    small = cloud_from_depth(depth, None, camera, color, max_grazing=None)
    large_color, large_depth, _, large_camera = drawn_frame(480, 640)
    large = cloud_from_depth(large_depth, None, large_camera, large_color, max_grazing=None)
    eye = view_camera("three-quarter", large.points)
    records = [{"step": i, "loss": 1 / (1 + i)} for i in range(2000)]
    scores = {f"opponent {i}": (0.05 + 0.01 * i, 0.04 + 0.01 * i, 0.06 + 0.01 * i) for i in range(8)}
    return {
        "depth picture, 240x320": lambda: depth_image(depth, is_valid, limits),
        "masked colour, 240x320": lambda: masked_color_image(color, masks[0]),
        "error picture, 240x320": lambda: error_image(prediction, depth, is_valid, 0.2),
        "panel, row, 1600 px": panel,
        "panel, grid, 1600 px": lambda: panel("grid"),
        "PNG of the row panel": lambda: to_png(sheet),
        "cloud from depth, 240x320": lambda: cloud_from_depth(depth, is_valid, camera, color),
        "cloud from depth, 480x640": lambda: cloud_from_depth(large_depth, None, large_camera, large_color),
        "view fitted to 307,200 points": lambda: view_camera("three-quarter", large.points),
        "splat, 76,800 points, 640x480": lambda: splat(small.points, small.colors, eye, point_size=3),
        "splat, 300,000 points, 640x480": lambda: splat(large.points[:300000], large.colors[:300000], eye),
        "splat, 300,000 points, shaded": lambda: splat(large.points[:300000], large.colors[:300000], eye, shading=0.6),
        "two linked stills, 76,800 points each": lambda: linked_stills(small, small),
        "loss curve, 2,000 records": lambda: figure_image(loss_curve(records)),
        "forest plot, 8 opponents": lambda: figure_image(bar_table(scores)),
        "page with 8 panels": lambda: page_of(sheet),
    }


def page_of(sheet: np.ndarray) -> str:
    """A page with the same panel eight times."""
    page = Page("Eight panels")
    page.section("Pictures", *[figure(sheet, "a panel") for _ in range(8)])
    return page.html()


def processor() -> str:
    """The processor's name where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    """Measure, print, and save where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    for name, call in cases().items():
        call()
        times = []
        for _ in range(arguments.repeats):
            began = time.perf_counter()
            call()
            times.append(1000 * (time.perf_counter() - began))
        found[name] = {"median_ms": round(statistics.median(times), 2), "fastest_ms": round(min(times), 2)}
        print(f"{name:40s} {found[name]['median_ms']:8.1f} ms   (fastest {found[name]['fastest_ms']:.1f})", flush=True)
    if arguments.out:
        record = {"benchmark": "pictures", "device": "cpu", "processor": processor(), "cores": os.cpu_count(),
                  "threads": 1, "repeats": arguments.repeats, "date": time.strftime("%Y-%m-%d"),
                  "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
                  "versions": {"python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__,
                               "matplotlib": matplotlib.__version__}, "times": found}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
