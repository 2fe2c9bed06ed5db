"""Latency of one prediction per preset, beside a bare timm ViT that sees the whole picture.

    python -m benchmarks.inference [--quick] [--out FILE] [--preset tiny base] [--threads 1 2]

One frame of 240x320 at 80/80, evaluation mode, masks drawn; all rows of one preset and thread count take turns. "bf16" is
autocast; "bf16 weights" keeps the linear layers' weights in bf16, which saves casting them on every call. The part that
is not the network, the smooth surface that the tiny preset starts from, stands apart. A preset whose weights would not
fit into half of the free memory is left out.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from benchmarks import take_turns, write
from benchmarks.training_gpu import drawn_batch
from mask3d_core.masking import Masks
from mask3d_core.models import PRESETS, Mask3D, parameter_count
from mask3d_core.models.anchor import spline_anchor
from mask3d_core.plan_measurements import memory_limit, synchronize
from mask3d_core.training.precision import autocast, cpu_has_bf16

RATIOS = (0.8, 0.8)
OPPONENT = {"tiny": "vit_tiny_patch16_224", "small": "vit_small_patch16_224", "base": "vit_base_patch16_224",
            "base-fast": "vit_base_patch16_224", "large": "vit_large_patch16_224"}
AIM_MS = 30.0  # a tiny prediction on two CPU cores


def with_bf16_weights(model: nn.Module) -> nn.Module:
    """A copy whose linear layers hold bf16 weights; all else, the depth head too, stays as it is."""
    model = copy.deepcopy(model)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name != "depth_head":
            module.to(torch.bfloat16)
    return model


def rows_of(preset: str, device: torch.device) -> tuple[dict[str, Any], int]:
    """Name to a call without arguments, and the model's parameters."""
    torch.manual_seed(0)
    model = Mask3D(PRESETS[preset]).to(device).eval()
    opponent = timm.create_model(OPPONENT[preset], img_size=(240, 320), num_classes=0).to(device).eval()
    batch = drawn_batch(1, device)
    masks = Masks.random(RATIOS, batch.frame_ids, batch.epochs, batch.is_valid, 16, may_have_holes=False)

    def predict(which: nn.Module, precision: str):
        def call() -> None:
            with torch.inference_mode(), autocast(precision, device):
                which(batch.color, batch.depth, batch.is_valid, batch.intrinsics, masks)
        return call

    def encode(precision: str):
        def call() -> None:
            with torch.inference_mode(), autocast(precision, device):
                opponent.forward_features(batch.color)
        return call

    rows = {"float32": predict(model, "float32"), f"{OPPONENT[preset]} float32": encode("float32")}
    if device.type == "cuda" or cpu_has_bf16():
        rows |= {"bf16": predict(model, "bf16"), "bf16 weights": predict(with_bf16_weights(model), "bf16"),
                 f"{OPPONENT[preset]} bf16": encode("bf16")}
    config = PRESETS[preset]
    if config.anchor == "spline":
        shown = masks.depth.logical_not().view(1, 15, 20).repeat_interleave(16, 1).repeat_interleave(16, 2)
        rows["surface alone"] = lambda: spline_anchor(batch.depth.log(), shown, 16, config.anchor_cells)
    return rows, parameter_count(model)


def fits(preset: str, device: torch.device) -> bool:
    """Whether the weights, their bf16 copy and the opponent's take less than half of the memory there is."""
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in timm.create_model(OPPONENT[preset]).parameters())
    limit = memory_limit(device)
    return limit is None or 3 * 4 * count < limit / 2


def main() -> None:
    """Parse, measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny alone, few repeats")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--preset", nargs="+", choices=list(PRESETS), default=None)
    parser.add_argument("--threads", nargs="+", type=int, default=[2, 1], help="CPU threads")
    parser.add_argument("--repeats", type=int, default=None)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    repeats = arguments.repeats or (9 if arguments.quick else 31)
    summary: dict[str, str] = {}
    found: dict[str, Any] = {}
    for preset in arguments.preset or (["tiny"] if arguments.quick else list(PRESETS)):
        if not fits(preset, device):
            summary[f"{preset}, one frame"] = "left out: too little memory"
            continue
        rows, parameters = rows_of(preset, device)
        found[preset] = {"parameters": parameters, "by_threads": {}}
        for threads in arguments.threads if device.type == "cpu" else [torch.get_num_threads()]:
            torch.set_num_threads(threads)
            times = take_turns(rows, repeats if preset == "tiny" else max(5, repeats // 4), device, warmup=2)
            found[preset]["by_threads"][threads] = times
            where = f"{threads} thread(s)" if device.type == "cpu" else "GPU"
            aim = f" (aim < {AIM_MS:.0f} ms)" if preset == "tiny" and device.type == "cpu" and threads == 2 else ""
            for name, time in times.items():
                summary[f"{preset}, one frame, {where}, {name}{aim}"] = (
                    f"median {time['median_ms']:.1f} ms, fastest {time['fastest_ms']:.1f}, CPU time {time['cpu_ms']:.1f}")
        del rows
        synchronize(device)
    write(arguments.out, "inference", device, summary, ratios=RATIOS, presets=found)


if __name__ == "__main__":
    main()
