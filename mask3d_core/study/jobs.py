"""One run of a study: a pre-training, or a fine-tuning with its score. Done once, its result is a few plain values.

The scheduler (``runner``) hands several at a time to worker processes.
"""

from __future__ import annotations

import base64
import json
import math
import os
import shutil
import threading
import time
import zlib
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mask3d_core.errors import DivergedError, Mask3DError
from mask3d_core.study.config import fingerprint
from mask3d_core.tasks.depth import METRICS as DEPTH_METRICS
from mask3d_core.training.config import PretrainConfig, from_dict, to_dict
from mask3d_core.training.finetune_config import FinetuneConfig

FORMAT = 1
KINDS = {"pretrain": PretrainConfig, "finetune": FinetuneConfig}


@dataclass(frozen=True)
class Job:
    """One run.

    Args:
        kind: "pretrain" or "finetune".
        name: readable, unique in a study.
        config: a PretrainConfig or FinetuneConfig as plain values.
        split: what a fine-tuned model is scored on: "val" for trials, "test" for the study's own runs.
        key: of the result: what was run, apart from where its files lie.
        origin: key of the pre-training whose weights it starts from; "" without one.
    """

    kind: str
    name: str
    config: dict[str, Any]
    split: str = ""
    key: str = ""
    origin: str = ""

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return self.config["fit"]["steps"]


def key_of(kind: str, config: dict[str, Any], split: str, *origins: str) -> str:
    """What identifies a result: the configuration without paths, the data's fingerprints and the key of the start.

    Only what differs from the defaults counts, so that results outlive a key that is added later; ``FORMAT`` grows when a
    default changes.
    """
    plain = {k: v for k, v in config.items() if k not in ("data", "validation_data", "test_data", "start", "init", "name")}
    plain = _changed(plain, json.loads(json.dumps(to_dict(KINDS[kind]()))))
    return fingerprint({"format": FORMAT, "kind": kind, "split": split, "config": plain, "origins": list(origins)})


def _changed(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """What differs from the defaults, however deep."""
    found = {}
    for key, value in json.loads(json.dumps(values)).items():
        known = defaults.get(key)
        if isinstance(value, dict) and isinstance(known, dict):
            value = _changed(value, known)
            if value:
                found[key] = value
        elif value != known:
            found[key] = value
    return found


def as_recorded(config: FinetuneConfig) -> FinetuneConfig:
    """With the rules of scoring that the recorded results were taken with, whatever the defaults became: the centre crop of the
    stored frame, predictions as they stand, no Eigen crop unless asked for. So a key goes on meaning the same measurement."""
    crop = "none" if config.depth.crop == "auto" else config.depth.crop
    return replace(config, view="centre", depth=replace(config.depth, clamp=False, crop=crop))


def run_job(job: Job, run: Path, device: str | None = None) -> dict[str, Any]:
    """Run it, or go on with it where it was interrupted.

    Args:
        job: what.
        run: its run folder; of a fine-tuning only ``scores.json`` and the log stay.
        device: "cpu" or "cuda".

    Returns:
        Plain values: what the study needs to know.

    Raises:
        Mask3DError: it cannot be run.
    """
    from mask3d_core.evaluation.downstream import ScoreConfig, evaluate_finetuned
    from mask3d_core.training.finetuned import load_finetuned
    from mask3d_core.training.finetuning import finetune
    from mask3d_core.training.precision import parse_device
    from mask3d_core.training.pretraining import pretrain

    began, config = time.perf_counter(), from_dict(KINDS[job.kind], job.config, job.name)
    config = as_recorded(config) if job.kind == "finetune" else config
    train = pretrain if job.kind == "pretrain" else finetune
    result = train(config, run, device, show=False)
    if not result.is_finished:
        raise Mask3DError("a finished run", f"stopped at step {result.step}", "Run the study again; it goes on there.", run)
    values: dict[str, Any] = {"kind": job.kind, "name": job.name, "key": job.key, "split": job.split, "steps": job.steps,
                              "frames_per_second": result.frames_per_second, "metrics": result.metrics}
    if job.kind == "finetune":
        model, record = load_finetuned(run)
        found = evaluate_finetuned(model, record, ScoreConfig(job.split, batch_size=32), "", parse_device(device))
        rooms = per_room(found)
        values |= {"scores": found, **({"rooms": rooms} if job.split == "test" else {})}
        for name in ("latest.safetensors", "latest.json"):
            (run / name).unlink()
    shutil.rmtree(run / "state", ignore_errors=True)
    return {**values, "seconds": time.perf_counter() - began, "by": machine(device)}


def machine(device: str | None = None) -> dict[str, str]:
    """On what a run is made, and when: processor or GPU, precision, torch."""
    from mask3d_core.evaluation.bench.report import processor
    from mask3d_core.training.precision import choose_precision, parse_device

    place = parse_device(device)
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else processor()
    return {"device": name, "precision": choose_precision("auto", place), "torch": torch.__version__, "date": date.today().isoformat()}


def diverged(job: Job, reason: str) -> dict[str, Any]:
    """The result of a run that went astray: the same run would again, so it is written down and not repeated."""
    return {"kind": job.kind, "name": job.name, "key": job.key, "split": job.split, "steps": job.steps, "diverged": reason, "seconds": 0.0}


def has_diverged(result: dict[str, Any] | None) -> bool:
    """Whether a run's result is that it diverged."""
    return bool(result and result.get("diverged"))


def score_of(result: dict[str, Any]) -> float:
    """The score that trials are compared by, higher is better: mIoU, or minus AbsRel; minus infinity where it diverged."""
    if has_diverged(result):
        return -math.inf
    scores = result["scores"]["scores"]["model"]
    value = scores["miou"] if "miou" in scores else -scores["abs_rel"]["mean"]
    return value if value is not None and math.isfinite(value) else -math.inf


def per_room(found: dict[str, Any]) -> dict[str, Any]:
    """What resampling rooms needs of a result, small; takes the bulk out of it.

    Returns:
        "names" of the rooms; "counts", packed int32 (rooms, classes, 3) of pixels that are right, true and predicted, or
        "values", packed float32 (rooms, 3) of AbsRel, RMSE and delta1 averaged over the room's frames.
    """
    if "matrices" in found:
        matrices = found.pop("matrices")
        names = sorted(matrices)
        stack = np.stack([np.asarray(matrices[name], np.int32) for name in names])
        right = np.diagonal(stack, axis1=1, axis2=2)
        counts = np.stack([right, stack.sum(2), stack.sum(1)], axis=-1).astype(np.int32)
        return {"names": names, "counts": pack(counts)}
    frames, sequences = found.pop("frames"), np.asarray(found.pop("sequences"))
    names = sorted(set(sequences.tolist()))
    table = np.array([[np.nanmean(np.asarray(frames[metric], np.float64)[sequences == name]) for metric in DEPTH_METRICS[:3]]
                      for name in names], np.float32)
    return {"names": names, "values": pack(table)}


def pack(array: np.ndarray) -> str:
    """An array as text: base64 of its zlib-compressed bytes; :func:`unpack` knows the shape."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 9)).decode()


def unpack(text: str, kind: str, *shape: int) -> np.ndarray:
    """What :func:`pack` was given.

    Args:
        kind: numpy's name of the numbers, "<i4" or "<f4".
        shape: one entry may be -1.
    """
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), kind).reshape(shape)


def start_worker(threads: int) -> None:
    """What a worker process does first: so many threads, and a watch that ends it when the study is gone."""
    torch.set_num_threads(threads)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(2.0)
        os._exit(1)  # what was saved stays; the study goes on from there

    threading.Thread(target=watch, name="study-watch", daemon=True).start()


def work(values: dict[str, Any]) -> dict[str, Any]:
    """Run a job in a worker process.

    Args:
        values: "job" (of :class:`Job`), "run" and "device".

    Returns:
        "result", or "error" in one line.
    """
    run = Path(values["run"])
    run.mkdir(parents=True, exist_ok=True)
    try:
        return {"result": run_job(Job(**values["job"]), run, values["device"])}
    except DivergedError as problem:
        shutil.rmtree(run / "state", ignore_errors=True)
        return {"result": diverged(Job(**values["job"]), str(problem))}
    except Mask3DError as problem:
        return {"error": str(problem)}
    except torch.OutOfMemoryError as problem:
        return {"error": f"{values['job']['name']}: the device's memory is full ({str(problem).splitlines()[0]}); use fewer --workers"}
