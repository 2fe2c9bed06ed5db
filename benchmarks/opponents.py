"""The trivial opponents on real frames: their scores and their time per frame.

    python benchmarks/opponents.py [--data ../shared/data] [--sets tum icl mosd rooms] [--hidden 0.8 0.95]
                                   [--color-hidden 0.8] [--limit 80] [--draws 1] [--out results/opponents_cpu.json]

Frames are brought to 240x320. Of the 16-px patches that hold a valid pixel a share is hidden at random, per frame and
draw; colour patches likewise. Scores are over hidden valid pixels up to 10 m, averaged per frame.
Times are of one thread, without what other programs took from it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path

import torch

from mask3d_core.evaluation import OPPONENTS, FrameScores, counted_pixels, depth_metrics, predict
from mask3d_core.masking import Masks, to_pixels
from mask3d_core.sources import Source, open_source
from mask3d_core.sources.opening import open_path

FOLDERS = {"tum": "tum_fr1_rpy", "icl": "icl_livingroom1", "mosd": "mosd_learn"}
HEIGHT, WIDTH, PATCH, MAX_DEPTH = 240, 320, 16, 10.0


def open_set(name: str, data: Path, limit: int) -> Source:
    """One of the real sets, or rooms that no training seed renders."""
    if name == "rooms":
        return open_source("rooms", count=limit, seed=99, views_per_room=1, pool="test", sensor=True, height=HEIGHT, width=WIDTH)
    return open_path(data / FOLDERS[name])


def measure(source: Source, limit: int, color_hidden: float, hidden: float, draws: int) -> tuple[FrameScores, dict]:
    """Scores of all opponents and the mean milliseconds of processor time of each per frame."""
    scores, seconds = FrameScores(), dict.fromkeys(OPPONENTS, 0.0)
    count = min(limit, len(source))
    grid = (HEIGHT // PATCH, WIDTH // PATCH)
    for number in range(count):
        index = number * len(source) // count
        frame = source.read(index).fit(HEIGHT, WIDTH)
        depth, is_valid = torch.from_numpy(frame.depth)[None], torch.from_numpy(frame.is_valid)[None]
        color = torch.from_numpy(frame.color).permute(2, 0, 1)[None] / 255
        for draw in range(draws):
            masks = Masks.random((color_hidden, hidden), torch.tensor([index]), draw, is_valid, PATCH)
            is_hidden, is_shown = to_pixels(masks.depth, grid, PATCH), ~to_pixels(masks.rgb, grid, PATCH)
            counted = counted_pixels(depth, is_valid, is_hidden, MAX_DEPTH)
            for name in OPPONENTS:
                start = time.process_time()
                answer = predict(name, depth, is_valid & ~is_hidden, color, is_shown, fallback=2.0)
                seconds[name] += time.process_time() - start
                scores.add(name, depth_metrics(answer.depth, depth, counted), [f"{index}"], [source.sequence(index)],
                           draw, answer.is_fallback)
    return scores, {name: 1000 * value / (count * draws) for name, value in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--sets", nargs="+", choices=[*FOLDERS, "rooms"], default=list(FOLDERS))
    parser.add_argument("--hidden", nargs="+", type=float, default=[0.8, 0.95], help="shares of depth patches hidden")
    parser.add_argument("--color-hidden", type=float, default=0.8, help="share of colour patches hidden")
    parser.add_argument("--limit", type=int, default=80, help="frames of each set, evenly spaced")
    parser.add_argument("--draws", type=int, default=1, help="mask draws per frame")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    results = []
    for name in arguments.sets:
        source = open_set(name, arguments.data, arguments.limit)
        for hidden in arguments.hidden:
            scores, milliseconds = measure(source, arguments.limit, arguments.color_hidden, hidden, arguments.draws)
            count = min(arguments.limit, len(source))
            print(f"\n{name}: {count} frames, {hidden:.0%} of the depth patches hidden, "
                  f"{arguments.color_hidden:.0%} of the colour patches")
            labels = {key: f"{one.label} ({milliseconds[key]:.0f} ms)" for key, one in OPPONENTS.items()}
            print(scores.table(labels=labels), flush=True)
            results.append({"set": name, "frames": count, "hidden": [arguments.color_hidden, hidden],
                            "draws": arguments.draws, "milliseconds": milliseconds,
                            "scores": scores.as_dict()["summary"]})
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        record = {"size": [HEIGHT, WIDTH], "patch": PATCH, "max_depth": MAX_DEPTH, "threads": 1,
                  "torch": torch.__version__, "python": platform.python_version(), "cores": os.cpu_count(),
                  "processor": platform.machine(), "results": results}
        arguments.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(f"\nwrote {arguments.out}")


if __name__ == "__main__":
    main()
