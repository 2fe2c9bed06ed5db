"""What a run will cost, measured before it starts: a few real steps of this very configuration on this device."""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mask3d_core.errors import Mask3DError
from mask3d_core.models.mask3d import parameter_count
from mask3d_core.plan_advice import advice, reference_runs
from mask3d_core.plan_measurements import (
    disk_speed, expected_seconds, frame_cost, measure_steps, memory_limit, peak_memory, reset_peak_memory, synchronize)
from mask3d_core.plan_report import Plan
from mask3d_core.tasks.pretrain import Pretrain
from mask3d_core.training.config import PretrainConfig
from mask3d_core.training.log import Progress
from mask3d_core.training.engine import Engine
from mask3d_core.training.precision import default_device
from mask3d_core.training.pretraining import _from_rooms, _from_store, build_model, training_model_config
from mask3d_core.training.statistics import gather_statistics

WARMUP = 3  # steps before the measured ones: compilation, first touches of the disk, the allocator
PATIENCE = 240.0  # seconds that the steps may take on a CPU; where whole batches would take longer, smaller ones are measured
_BYTES = 4  # of a float32


def make_plan(config: PretrainConfig, steps: int = 20, device: str | torch.device | None = None,
              reference: str | Path | None = None, run: str | Path | None = None, show: bool = True) -> Plan:
    """Measure a few training steps and say what the whole run will take. Writes nothing that stays.

    Args:
        config: the run.
        steps: how many are measured, after three that are not.
        device: by default the GPU if there is one.
        reference: a checkpoint's JSON, or a folder of them, to compare the frames seen with; by default what ships.
        run: where the run would be written; only its disk is looked at. By default the working folder.
        show: a progress bar.

    Raises:
        ConfigError: an impossible configuration, all problems at once.
        StoreError: the store is missing or damaged.
        Mask3DError: not even one frame fits into memory, torch.compile does not work, or no such reference.
    """
    if steps < 1:
        raise Mask3DError("at least one step to measure", str(steps), "20 is the default.", "plan")
    config = training_model_config(config.validate())
    references = reference_runs(None if reference is None else Path(reference), config.name)
    place = torch.device(device) if device is not None else default_device()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    began = time.perf_counter()
    data = (_from_rooms if config.data == "rooms" else _from_store)(config, place, 0, 1)
    statistics = gather_statistics(data.sample, config.model.target)
    task = Pretrain(config, build_model(config, statistics), data.validation, data.record, statistics.mean_map)
    engine = Engine(task, config.fit, Path("."), place, config.fit.batch_size * config.fit.accumulate)
    start_seconds = time.perf_counter() - began
    measured = _measure(engine, data, steps, show)
    fit = config.fit
    evaluations = 1 + _times(fit.steps, fit.eval_every)
    disk, peak, evaluation_seconds = _evaluate(engine, statistics.mean_map.numel(), evaluations)
    folder = _existing(Path.cwd() if run is None else Path(run))
    speed = disk_speed(None if run is None else folder, disk["states"])
    store = getattr(data.batches, "store", None)
    plan = Plan(
        name=config.name, data=config.data, device=_device_name(place), threads=torch.get_num_threads(),
        cores=_cores(), load_average=load, precision=engine.precision, steps=fit.steps,
        frames_per_step=engine.frames_per_step, batch_size=fit.batch_size, accumulate=fit.accumulate,
        measured_steps=steps, start_seconds=start_seconds + measured.pop("compile_seconds"), evaluations=evaluations,
        evaluation_seconds=evaluation_seconds + disk["latest"] / speed, saves=_times(fit.steps, fit.save_every),
        save_seconds=disk["states"] / fit.keep / speed, parameters=parameter_count(task.model),
        kept_parameters=parameter_count(task.model.rgb_encoder) if "rgb" in config.model.inputs else 0,
        disk=disk, disk_peak=peak, disk_free=shutil.disk_usage(folder).free,
        distinct_frames=data.record.get("frames"), recordings=len(data.record["sequences"]) or None,
        store_bytes=None if store is None else _store_bytes(store, len(data.batches.indices)),
        references=references, **measured)
    valid_share = None if store is None else getattr(store.header, "valid_share", None)
    return dataclasses.replace(plan, warnings=advice(config, plan, len(data.validation or ()), valid_share))


def _measure(engine: Engine, data: Any, steps: int, show: bool) -> dict[str, Any]:
    """The measured fields of a plan, with batches as large as memory and patience allow."""
    config, device, fit = engine.task.config, engine.device, engine.config
    weights = config.mask.weights or (1.0,) * len(config.mask.ratios)
    data.batches.batch_size = 1
    began = time.perf_counter()
    one = data.batches.batch(0)
    made = time.perf_counter() - began
    engine.model.train()
    cost = frame_cost(engine.task, one, engine.precision)
    mean_flops, mean_seconds = (float(np.average([of[pair] for pair in config.mask.ratios], weights=weights))
                                for of in (cost.flops, cost.seconds))
    # weights, gradients and two moments; the averaged weights are there already
    fixed = 3 * _BYTES * parameter_count(engine.model)
    batch, accumulate, limit = fit.batch_size, fit.accumulate, memory_limit(device)
    if device.type != "cuda":
        # a CPU process that asks for too much is killed, so it is worked out beforehand: one batch and a margin
        if limit is not None:
            batch = min(batch, int((0.8 * (limit - fixed) - cost.saved_bytes) / max(1, cost.saved_bytes)))
        batch = min(batch, int(PATIENCE / ((mean_seconds + made) * (steps + WARMUP))))
        batch = max(1, batch)
    while True:
        if batch < fit.batch_size:
            accumulate = 1
        data.batches.batch_size = batch
        engine.config = dataclasses.replace(fit, accumulate=accumulate)
        reset_peak_memory(device)
        progress = Progress(WARMUP + steps, 0, batch * accumulate, "plan", show, WARMUP)
        engine.step = 0
        try:
            found = measure_steps(engine, data.batches, WARMUP, steps, progress)
            break
        except torch.OutOfMemoryError:
            engine.optimizer.zero_grad(set_to_none=True)
            if batch == 1:
                raise Mask3DError("a GPU that holds one frame", "out of memory", "Choose a smaller preset.",
                                  config.name) from None
            batch //= 2
            torch.cuda.empty_cache()
        finally:
            progress.close()
            engine.config = fit
    scale = fit.batch_size * fit.accumulate / (batch * accumulate)
    mean, half = expected_seconds(found, cost.flops, mean_flops)
    memory = peak_memory(device)
    if memory is not None and batch < fit.batch_size:
        memory += (fit.batch_size - batch) * cost.saved_bytes
    return {"measured_batch": batch, "step_seconds": scale * mean, "step_error": scale * half, "waited": found.waited,
            "compile_seconds": max(0.0, found.warmup_seconds - WARMUP * mean), "memory_bytes": memory,
            "memory_limit": limit, "flops_per_frame": mean_flops}


def _evaluate(engine: Engine, map_size: int, evaluations: int) -> tuple[dict[str, int], int, float]:
    """One real evaluation: bytes by part of the run folder, its peak, and the seconds of an evaluation."""
    fit, began = engine.config, time.perf_counter()
    preview = 0
    if engine.task.validation is not None:
        engine.with_weights(engine.task.evaluate)
        arrays = engine.with_weights(engine.task.preview)
        if arrays:
            buffer = BytesIO()
            np.savez_compressed(buffer, **arrays)
            preview = buffer.tell()
    synchronize(engine.device)
    seconds = time.perf_counter() - began
    weights = sum(t.numel() * t.element_size() for t in engine.model.state_dict().values())
    moments = 2 * _BYTES * parameter_count(engine.model)
    state = weights + moments + (weights if fit.ema else 0)
    states = min(fit.keep, _times(fit.steps, fit.save_every))
    lines = _times(fit.steps, fit.log_every)
    disk = {"states": states * state, "latest": weights + _BYTES * map_size, "previews": evaluations * preview,
            "log": 500 * lines + 22 * fit.steps + 150 * evaluations}
    return disk, sum(disk.values()) + max(state, disk["latest"]), seconds


def _times(steps: int, every: int) -> int:
    """How often something happens that is done every few steps and at the end."""
    return 1 if not every else steps // every + (steps % every > 0)


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.is_dir():
        path = path.parent
    return path


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda, {torch.cuda.get_device_name(device)}"
    try:
        with open("/proc/cpuinfo") as file:
            return "cpu, " + next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return f"{device.type}, {platform.processor() or platform.machine()}"


def _store_bytes(store: Any, frames: int) -> int:
    return frames * store.header.height * store.header.width * 5


__all__ = ["PATIENCE", "WARMUP", "Plan", "make_plan"]
