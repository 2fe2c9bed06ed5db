"""The training step: the engine beside the bare step on a CPU; frames/s from memory and from a store on a GPU.

    python -m benchmarks.training [--quick] [--out FILE] [--cpu | --gpu] [--preset base] [--batch 128 256 512]

Needs only torch, timm, numpy and safetensors. The bare step is forward, backward and AdamW on a ready batch with ready
masks, with fused or plain attention, whichever is faster here; the engine's draws masks, clips, guards against NaN and
averages weights as well. Reading and augmentation stand apart. On a GPU the store is of rooms rendered there.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import peak_tflops, take_turns, temporary_store, write
from benchmarks.training_gpu import measure_gpu
from mask3d_core.batches import AugmentConfig, Batch, StoreBatches, augment
from mask3d_core.masking import MaskConfig
from mask3d_core.models import Mask3D
from mask3d_core.plan_measurements import frame_cost
from mask3d_core.tasks.pretrain import Pretrain, pretrain_loss
from mask3d_core.training.config import PretrainConfig, pretrain_config
from mask3d_core.training.engine import Engine
from mask3d_core.training.precision import autocast, cpu_has_bf16
from mask3d_core.training.schedule import parameter_groups

RATIOS = (0.8, 0.8)
CPU = torch.device("cpu")


def recipe(name: str, precision: str, batch_size: int) -> PretrainConfig:
    """A preset's own recipe at 80/80."""
    config = pretrain_config(name)
    fit = dataclasses.replace(config.fit, batch_size=batch_size, accumulate=1, precision=precision, compile=False)
    return dataclasses.replace(config, mask=MaskConfig(ratios=(RATIOS,)), fit=fit)


def bare_step(config: PretrainConfig, batch: Batch, is_fused: bool):
    """Forward, backward and AdamW with masks already drawn, as a call without arguments."""
    task = Pretrain(config, Mask3D(config.model), None, {})
    for module in task.model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = is_fused
    masks = task.masks(batch, RATIOS, config.mask.seed)
    optimizer = torch.optim.AdamW(parameter_groups(task.model, config.fit.weight_decay), lr=1e-5, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(config.fit.precision, batch.color.device):
            output = task.model(batch.color, batch.depth, batch.is_valid, batch.intrinsics, masks)
            loss = pretrain_loss(config, batch, masks, output)
        (loss.total / loss.count).backward()
        optimizer.step()

    return step


def measure_cpu(preset: str, batch_size: int, repeats: int) -> tuple[dict[str, str], dict[str, Any]]:
    """The engine's step and the bare one, taking turns; then what else a step needs, apart."""
    summary: dict[str, str] = {}
    found: dict[str, Any] = {"preset": preset, "batch_size": batch_size, "ratios": RATIOS, "precisions": {}}
    with temporary_store(2 * batch_size) as store:
        source = StoreBatches(store, store.indices("train"), batch_size, (240, 320), AugmentConfig())
        batch, raw = source.batch(0), source.read(0)
        plain = dataclasses.replace(source.finish(raw), color=torch.rand(batch_size, 3, store.header.height,
                                                                         store.header.width),
                                    depth=torch.rand(batch_size, store.header.height, store.header.width) + 1,
                                    is_valid=torch.ones(batch_size, store.header.height, store.header.width).bool())
        apart = take_turns({"read": lambda: source.read(0), "finish": lambda: source.finish(raw),
                            "augment": lambda: augment(plain, (240, 320), AugmentConfig(), 0)}, repeats)
    for precision in ("float32", "bf16"):
        if precision == "bf16" and not cpu_has_bf16():
            summary[f"{preset} step, cpu, bf16"] = "left out: this CPU multiplies bf16 in software"
            continue
        config = recipe(preset, precision, batch_size)
        engine = Engine(Pretrain(config, Mask3D(config.model), None, {}), config.fit, Path("."), CPU, batch_size)
        endless = itertools.repeat(batch)
        times = take_turns({"bare_fused": bare_step(config, batch, True), "engine": lambda: engine.train_step(endless),
                            "bare_plain": bare_step(config, batch, False),
                            "masks": lambda: engine.task.masks(batch, RATIOS, 0)}, repeats, patience=120)
        ratio, cpu_ratio = (times["engine"][key] / min(times["bare_fused"][key], times["bare_plain"][key])
                            for key in ("median_ms", "cpu_ms"))
        cost = frame_cost(engine.task, batch, precision)
        rate = cost.flops[RATIOS] * batch_size / (times["engine"]["cpu_ms"] / 1000) / 1e9
        found["precisions"][precision] = {"times": times, "ratio": ratio, "cpu_ratio": cpu_ratio,
                                          "gflop_per_frame": cost.flops[RATIOS] / 1e9, "gflops": rate}
        summary[f"{preset} step / bare step, cpu, {precision} (aim <= 1.10)"] = (
            f"{cpu_ratio:.3f} in CPU time, {ratio:.3f} by the clock")
        summary[f"{preset} step, cpu, {precision}, CPU time"] = (
            f"{times['engine']['cpu_ms'] / batch_size:.1f} ms per frame, {rate:.0f} GFLOP/s; bare with fused attention "
            f"{times['bare_fused']['cpu_ms'] / batch_size:.1f}, plain {times['bare_plain']['cpu_ms'] / batch_size:.1f}")
    found["apart"] = apart
    found["peak_gflops_bf16_matmul"] = peak_tflops(CPU, seconds=0.2) * 1000
    for name, what in (("read", "reading a store (page cache)"), ("finish", "to metres and augmentation"),
                       ("augment", "augmentation alone")):
        summary[f"apart, CPU time: {what}"] = f"{apart[name]['cpu_ms'] / batch_size:.2f} ms per frame"
    size = sum(np.prod(tensor.shape) * tensor.element_size() for tensor in raw)
    found["bytes_read_per_frame"] = int(size) // batch_size
    return summary, found


def main() -> None:
    """Parse, measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few repeats, small batches")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--cpu", action="store_true", help="the CPU part alone")
    only.add_argument("--gpu", action="store_true", help="the GPU part alone")
    parser.add_argument("--preset", nargs="+", default=["base"], help="of the GPU part")
    parser.add_argument("--batch", nargs="+", type=int, default=[128, 256, 512, 1024], help="batch sizes of the GPU part")
    parser.add_argument("--frames", type=int, default=8192, help="rooms in the GPU part's store")
    parser.add_argument("--steps", type=int, default=30, help="steps per batch size of the GPU part")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of the CPU part")
    parser.add_argument("--device", default="cuda", help="of the GPU part; cpu tries its code where there is no GPU")
    arguments = parser.parse_args()
    summary: dict[str, str] = {}
    values: dict[str, Any] = {"cpu": None, "gpu": None}
    if not arguments.gpu:
        before = torch.get_num_threads()
        torch.set_num_threads(arguments.threads)
        batch_size, repeats = (4, 3) if arguments.quick else (16, 9)
        words, values["cpu"] = measure_cpu("tiny", batch_size, repeats)
        values["cpu"]["threads"] = arguments.threads
        summary |= words
        torch.set_num_threads(before)
    device = torch.device(arguments.device)
    if not arguments.cpu:
        if device.type == "cuda" and not torch.cuda.is_available():
            summary["training on a GPU"] = "left out: no CUDA device here"
            device = CPU
        else:
            sizes = arguments.batch[:1] if arguments.quick else arguments.batch
            values["gpu"] = {}
            for preset in arguments.preset:
                words, values["gpu"][preset] = measure_gpu(preset, device, sizes, arguments.steps, arguments.frames)
                summary |= words
    write(arguments.out, "training", CPU if arguments.cpu else device, summary, **values)


if __name__ == "__main__":
    main()
