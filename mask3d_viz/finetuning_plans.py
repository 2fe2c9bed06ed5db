"""Fine-tuning runs that could be started side by side: one per start, all else the same."""

from __future__ import annotations

import json
import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from mask3d_core.errors import ConfigError
from mask3d_core.models.config import EncoderConfig
from mask3d_core.store import Store
from mask3d_core.training.checkpoint import read_json, stem
from mask3d_core.training.config import FitConfig, from_dict, to_dict
from mask3d_core.training.finetune_config import FinetuneConfig, finetune_config
from mask3d_viz.lab import SHIPPED_ENCODER
from mask3d_viz.run_plans import data_of
from mask3d_viz.runs import Run

RANDOM, SHIPPED_NAME = "random", "shipped"
EVALUATIONS = 12  # of a run whose options do not say how many


def plan_finetuning(folder: str | Path, data: Any, start: str = RANDOM, beside: str = RANDOM, task: str = "segment",
                    device: str = "",
                    **changes: Any) -> dict[str, Run]:
    """Runs that could be started; nothing is written yet.

    Args:
        folder: holds a run folder per start.
        data: a prepared store, or its folder.
        start, beside: "random", "shipped" (the checkpoint `micro`), or what ``open_start`` knows; beside "": nothing.
            "random" has the architecture of the other.
        task: "segment", "depth" or "detect".
        device: "cpu" or "cuda"; "": the GPU if there is one.
        changes: fields of ``FinetuneConfig`` and of its ``FitConfig`` (steps, batch_size, ...). ``image_size`` is by default what
            the start was trained at, as far as the store's frames reach.

    Returns:
        Name to run, the start first; one entry where both are the same.

    Raises:
        ConfigError: unknown or impossible options, all at once. Mask3DError: no such store or checkpoint.
    """
    place = data_of(data)
    starts = {name_of_start(each): str(SHIPPED_ENCODER) if each == SHIPPED_NAME else str(each) for each in (start, beside) if each}
    if not starts:
        raise ConfigError("start must be random, shipped, timm:<name> or a checkpoint")
    shape, patch, size = _architecture(starts)
    configs = {}
    for name, each in starts.items():
        configs[name] = _config(task, place, each, shape, size, patch, dict(changes))
    threads = _threads(len(configs), device)
    return {name: Run(Path(folder) / name, config, device, threads) for name, config in configs.items()}


def name_of_start(start: str) -> str:
    """What a start is called in the panel, and its run folder: "random", "shipped", "vit_tiny_patch16_224", a run's name."""
    kind, _, rest = str(start).partition(":")
    if kind == "step-zero" and rest:
        return f"step-zero-{Path(rest).name}"
    return Path(rest if kind in ("timm", "random") and rest else str(start)).name


def _architecture(starts: dict[str, str]) -> tuple[EncoderConfig | None, int | None, tuple[int, int] | None]:
    """Shape, patch and picture size of the first start that is a checkpoint of ours; "random" takes them over."""
    for start in starts.values():
        path = stem(start).with_name(stem(start).name + ".json")
        if start.startswith(("timm:", "random", "step-zero:")) or not path.is_file():
            continue
        record = read_json(path)
        model = record.get("model", {})
        encoder = model.get("rgb") if record.get("kind") == "mask3d" else model.get("encoder")
        if isinstance(encoder, dict) and {"patch", "image_size"} <= set(model):
            return EncoderConfig(**encoder), int(model["patch"]), tuple(model["image_size"])
    return None, None, None


def _config(task: str, data: str, start: str, shape: EncoderConfig | None, size: tuple[int, int] | None, patch: int | None,
            changes: dict[str, Any]) -> FinetuneConfig:
    ours, fit_names = {f.name for f in fields(FinetuneConfig)}, {f.name for f in fields(FitConfig)}
    unknown = sorted(set(changes) - ours - fit_names)
    if unknown:
        raise ConfigError([f"unknown option {key!r}; there are "
                           f"{', '.join(sorted((ours | fit_names) - {'fit', 'task', 'data', 'start'}))}"
                           for key in unknown])
    fit_changes = {k: changes.pop(k) for k in list(changes) if k in fit_names}
    own = {name: value for name, value in (("shape", shape), ("patch", patch)) if value is not None}
    changes = {**own, **{k: tuple(v) if isinstance(v, list) else v for k, v in changes.items()}}
    if "image_size" not in changes:
        side, header, wanted = changes.get("patch", FinetuneConfig.patch), Store(data).header, size or FinetuneConfig.image_size
        changes["image_size"] = tuple(max(side, min(a, b) // side * side) for a, b in zip(wanted, (header.height, header.width)))
    base = finetune_config(task, data=data, start=start, **changes)
    fit = replace(base.fit, **fit_changes)
    if "eval_every" not in fit_changes:
        fit = replace(fit, eval_every=max(1, fit.steps // EVALUATIONS))
    if "log_every" not in fit_changes:
        fit = replace(fit, log_every=max(1, min(fit.log_every, fit.steps // 30)))
    made = replace(base, fit=fit).validate()
    return from_dict(FinetuneConfig, json.loads(json.dumps(to_dict(made))), "options")  # as config.json will say it


def _threads(runs: int, device: str) -> int:
    """Runs that train at a time share the cores of a CPU; a single one, or one on a GPU, takes what torch gives it."""
    if runs < 2 or device == "cuda" or (not device and torch.cuda.is_available()):
        return 0
    return max(1, (os.cpu_count() or 1) // runs)


__all__ = ["RANDOM", "SHIPPED_NAME", "name_of_start", "plan_finetuning"]
