"""The GPU half of ``benchmarks.training``: frames/s from memory, from a prepared store and from live rooms.

Everything is measured in one run on one device: the peak of a large bf16 matrix product, the bandwidth of a large copy
and of a transfer from pinned memory, then each batch size, then the store with the best one.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import peak_tflops, temporary_store
from mask3d_core.batches import AugmentConfig, Batch, RoomsBatches, StoreBatches, augment
from mask3d_core.masking import MaskConfig
from mask3d_core.models import Mask3D, parameter_count
from mask3d_core.plan_measurements import frame_cost, peak_memory, reset_peak_memory, synchronize
from mask3d_core.sources.rooms import RoomsConfig
from mask3d_core.tasks.pretrain import Pretrain
from mask3d_core.training.config import pretrain_config
from mask3d_core.training.engine import Engine

RATIOS = (0.8, 0.8)
WARMUP = 5


def make_engine(preset: str, batch_size: int, device: torch.device, compiled: bool) -> Engine:
    """A fresh engine with the preset's own recipe (plain l2 for all but tiny) at 80/80."""
    config = pretrain_config(preset)
    fit = dataclasses.replace(config.fit, batch_size=batch_size, accumulate=1, compile=compiled)
    config = dataclasses.replace(config, mask=MaskConfig(ratios=(RATIOS,)), fit=fit)
    torch.manual_seed(0)
    engine = Engine(Pretrain(config, Mask3D(config.model), None, {}), fit, Path("."), device, batch_size)
    engine.model.train()
    return engine


def drawn_batch(size: int, device: torch.device) -> Batch:
    """Noise without holes, as rooms have none."""
    depth = torch.rand(size, 240, 320, device=device) * 4 + 1
    intrinsics = torch.tensor([260.0, 260.0, 159.5, 119.5], device=device).expand(size, 4).contiguous()
    ids = torch.arange(size, device=device)
    return Batch(torch.rand(size, 3, 240, 320, device=device), depth, torch.ones_like(depth, dtype=torch.bool), intrinsics,
                 ids, torch.zeros_like(ids), False)


def frames_per_second(engine: Engine, source, steps: int) -> dict[str, float]:
    """Frames/s of the engine's step, the start (compilation) apart; nothing waits for the device in between."""
    device, began = engine.device, time.perf_counter()
    for _ in range(WARMUP):
        engine.train_step(source)
    synchronize(device)
    start = time.perf_counter()
    for _ in range(steps):
        engine.train_step(source)
    synchronize(device)
    seconds = time.perf_counter() - start
    return {"frames_per_second": steps * engine.frames_per_step / seconds, "step_ms": 1000 * seconds / steps,
            "start_seconds": start - began}


def from_memory(preset: str, device: torch.device, sizes: list[int], steps: int) -> tuple[dict[int, Any], bool, str]:
    """Each batch size on a batch that lies on the device; whether it was compiled, and if not, why."""
    found: dict[int, Any] = {}
    compiled, reason = True, ""
    for size in sizes:
        torch.compiler.reset()  # a second shape would be compiled as a dynamic one
        source = itertools.repeat(drawn_batch(size, device))
        reset_peak_memory(device)
        try:
            try:
                found[size] = frames_per_second(make_engine(preset, size, device, compiled), source, steps)
            except torch.OutOfMemoryError:
                raise
            except Exception as problem:
                if not compiled or not type(problem).__module__.startswith(("torch._dynamo", "torch._inductor")):
                    raise
                compiled, reason = False, str(problem).strip().splitlines()[0][:200]
                found[size] = frames_per_second(make_engine(preset, size, device, False), source, steps)
            found[size]["peak_bytes"] = peak_memory(device)
        except torch.OutOfMemoryError:
            found[size] = {"does_not_fit": True}
        print(f"  {preset}, batch {size}: {found[size]}", flush=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return found, compiled, reason


def bandwidth(device: torch.device) -> dict[str, float]:
    """GB/s of a large copy on the device (read and written counted) and of a transfer from pinned memory."""
    is_gpu = device.type == "cuda"
    large = torch.empty((2**30 if is_gpu else 2**24), dtype=torch.uint8, device=device)
    other = torch.empty_like(large)
    host = torch.empty(2**28 if is_gpu else 2**20, dtype=torch.uint8, pin_memory=is_gpu)

    def gigabytes_per_second(count: int, call) -> float:
        call()
        synchronize(device)
        start = time.perf_counter()
        for _ in range(10):
            call()
        synchronize(device)
        return 10 * count / (time.perf_counter() - start) / 1e9

    return {"device_copy": gigabytes_per_second(2 * large.numel(), lambda: other.copy_(large)),
            "host_to_device": gigabytes_per_second(host.numel(), lambda: host.to(device, non_blocking=True))}


KINDS = (("matrix products", ("gemm", "cutlass", "xmma", "nvjet", "matmul", "addmm", "::mm", "::bmm", "cublas")),
         ("attention", ("flash", "fmha", "attention", "softmax")), ("optimizer", ("adam", "multi_tensor", "foreach", "lerp")),
         ("copies", ("memcpy", "memset", "copy_")), ("compiled pointwise", ("triton",)))


def where_time_goes(engine: Engine, source, steps: int = 4) -> dict[str, float]:
    """Milliseconds per step on the device by kind of kernel, and the share of the time in which it was busy."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    is_gpu = engine.device.type == "cuda"
    synchronize(engine.device)
    start = time.perf_counter()
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_gpu else [])]) as profiler:
        for _ in range(steps):
            engine.train_step(source)
        synchronize(engine.device)
    seconds = time.perf_counter() - start
    found: dict[str, float] = {}
    for event in profiler.key_averages():
        if is_gpu != (event.device_type == DeviceType.CUDA):
            continue
        microseconds = event.self_device_time_total if is_gpu else event.self_cpu_time_total
        name = event.key.lower()
        kind = next((kind for kind, words in KINDS if any(word in name for word in words)), "other")
        found[kind] = found.get(kind, 0.0) + microseconds / 1000 / steps
    found["busy_share"] = sum(found.values()) * steps / 1000 / seconds
    return {name: round(value, 3) for name, value in found.items()}


def from_store(engine: Engine, store, steps: int, ahead: int) -> dict[str, float]:
    """The same engine fed from a store: read, sent, augmented."""
    size = engine.config.batch_size
    batches = StoreBatches(store, store.indices("train"), size, (240, 320), AugmentConfig(), 0, engine.device)
    with closing(batches.iterate(ahead=ahead)) as source:
        return frames_per_second(engine, source, steps)


def stages(engine: Engine, store, repeats: int = 5) -> dict[str, float]:
    """Frames/s of each stage alone: one thread reading, reading and pinning, augmenting on the device, rendering live."""
    size, device = engine.config.batch_size, engine.device
    batches = StoreBatches(store, store.indices("train"), size, (240, 320), AugmentConfig(), 0, device)
    raw = batches.read(0)
    ready = batches.finish(raw)
    wide = dataclasses.replace(ready, color=torch.rand(size, 3, 256, 336, device=device),
                               depth=torch.rand(size, 256, 336, device=device) + 1,
                               is_valid=torch.ones(size, 256, 336, dtype=torch.bool, device=device))
    rooms = RoomsBatches(RoomsConfig(height=256, width=336), size, (240, 320), AugmentConfig(), 0, device)
    calls = {"read_one_thread": lambda k: batches.read(k), "send_and_augment": lambda k: batches.finish(raw),
             "augment": lambda k: augment(wide, (240, 320), AugmentConfig(), k), "rooms_live": lambda k: rooms.batch(k)}
    if device.type == "cuda":
        calls["read_and_pin_one_thread"] = lambda k: [tensor.pin_memory() for tensor in batches.read(k)]
    found = {}
    for name, call in calls.items():
        call(0)
        synchronize(device)
        start = time.perf_counter()
        for k in range(repeats):
            call(k + 1)
        synchronize(device)
        found[name] = size * repeats / (time.perf_counter() - start)
    return found


def measure_gpu(preset: str, device: torch.device, sizes: list[int], steps: int, frames: int
                ) -> tuple[dict[str, str], dict[str, Any]]:
    """Everything about one preset; words for the table and the numbers."""
    peak, memory = peak_tflops(device), bandwidth(device)
    sizes_found, compiled, reason = from_memory(preset, device, sizes, steps)
    best = max((size for size in sizes_found if "frames_per_second" in sizes_found[size]),
               key=lambda size: sizes_found[size]["frames_per_second"])
    torch.compiler.reset()
    engine = make_engine(preset, best, device, compiled)
    flops = frame_cost(engine.task, drawn_batch(1, device), engine.precision).flops[RATIOS]
    ready = itertools.repeat(drawn_batch(best, device))
    with temporary_store(frames, device) as store:
        bytes_per_frame = sum(np.asarray(c[:1]).nbytes for c in (store.color, store.depth, store.intrinsics))
        # taking turns, so that both see the same clocks and temperature; the best of each
        turns = [(frames_per_second(engine, ready, steps), *(from_store(engine, store, steps, ahead) for ahead in (2, 4, 8)))
                 for _ in range(2)]
        alone = stages(engine, store)
    memory_rate = max(turn[0]["frames_per_second"] for turn in turns)
    by_ahead = {ahead: max(turn[i]["frames_per_second"] for turn in turns) for i, ahead in ((1, 2), (2, 4), (3, 8))}
    store_rate = max(by_ahead.values())
    try:
        profile = where_time_goes(engine, ready)
    except RuntimeError as problem:
        profile = {"left_out": str(problem)[:200]}
    achieved = flops * memory_rate / 1e12
    # the least an optimiser step moves: weights, gradients, two moments read; weights, moments written; 4 bytes each
    optimizer_bytes = 7 * 4 * parameter_count(engine.model)
    numbers = {"compiled": compiled, "not_compiled_because": reason, "batch_sizes": sizes_found, "best_batch": best,
               "precision": engine.precision, "frames_per_second_from_memory": memory_rate,
               "frames_per_second_from_store_by_ahead": by_ahead, "store_share": store_rate / memory_rate,
               "stages_frames_per_second": alone, "gflop_per_frame": flops / 1e9, "tflops": achieved,
               "peak_tflops_bf16_matmul": peak, "share_of_peak": achieved / peak, "bandwidth_gb_per_second": memory,
               "bytes_per_frame_from_store": bytes_per_frame, "optimizer_bytes_per_step": optimizer_bytes,
               "device_ms_per_step": profile, "parameters": parameter_count(engine.model), "store_frames": frames}
    what = f"{preset}, 240x320, {'compiled' if compiled else 'not compiled'}, {engine.precision}"
    summary = {
        f"{what}: from memory (aim 3,000)": f"{memory_rate:,.0f} frames/s at batch {best}",
        f"{preset}: share of the measured bf16 matmul peak": f"{achieved:.3g} of {peak:.3g} TFLOP/s = {achieved / peak:.1%}",
        f"{preset}: from a prepared store (aim >= 95 %)": f"{store_rate:,.0f} frames/s = {store_rate / memory_rate:.1%}",
        f"{preset}: bytes": f"{bytes_per_frame * store_rate / 1e9:.2f} GB/s from the store "
                            f"(link {memory['host_to_device']:.0f} GB/s), optimiser at least "
                            f"{optimizer_bytes / 1e9:.2f} GB per step (memory {memory['device_copy']:,.0f} GB/s)",
        f"{preset}: stages alone, frames/s": ", ".join(f"{name} {rate:,.0f}" for name, rate in alone.items()),
        f"{preset}: device ms per step": ", ".join(f"{name} {value}" for name, value in profile.items())}
    return summary, numbers
