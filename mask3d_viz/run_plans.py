"""What a run trains, as a configuration and as the command line that means the same."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from mask3d_core.errors import Mask3DError
from mask3d_core.losses import LossConfig
from mask3d_core.masking import MaskConfig
from mask3d_core.models.config import EncoderConfig
from mask3d_core.training.config import PretrainConfig, from_dict, pretrain_config, to_dict
from mask3d_core.training.finetune_config import FinetuneConfig, finetune_config

FINETUNE_FLAGS = {"data": "--data", "start": "--start", "fit.steps": "--steps", "label_fraction": "--label-fraction",
                  "freeze": "--freeze", "select": "--select"}


def lesson_config(steps: int = 90, data: str = "rooms") -> PretrainConfig:
    """A Mask3D that one can watch learn: about 40 seconds of two CPU cores from nothing to better than the mean.

    Pictures of 120 x 160 in patches of 8 (the grid of 15 x 20 that the shipped model has), three layers, no anchor to lean
    on, rooms that it never sees twice, 80 % of both hidden. Ours; the paper trains a ViT-B for days.

    Args:
        steps: of 8 frames.
        data: "rooms", or a prepared store.
    """
    base = pretrain_config("tiny", data=data)
    model = replace(base.model, anchor="none", image_size=(120, 160), patch=8,
                    rgb=EncoderConfig(width=96, depth=3, heads=4), depth=EncoderConfig(width=72, depth=2, heads=3),
                    decoder_width=96, decoder_depth=2, decoder_heads=4)
    fit = replace(base.fit, steps=steps, batch_size=8, learning_rate=6e-2, ema=0.9, eval_every=max(1, steps // 6),
                  save_every=0, log_every=3)
    return replace(base, name="lesson/mask3d", model=model, rooms_sensor=0.0, mask=MaskConfig(((0.8, 0.8),)),
                   loss=LossConfig(kind="huber", counted="all"), fit=fit, eval_frames=8, preview=2).validate()


def config_of(values: dict[str, Any], where: str = "") -> PretrainConfig | FinetuneConfig:
    """A run's ``config.json`` as what it is: of a pre-training or of a fine-tuning.

    Raises:
        ConfigError: unknown keys or values of the wrong type.
    """
    return from_dict(FinetuneConfig if "task" in values else PretrainConfig, values, where)


def command_of(folder: str | Path, config: PretrainConfig | FinetuneConfig, device: str = "") -> list[str]:
    """The arguments of ``mask3d`` that train this configuration into this folder, as short as they can be.

    Args:
        folder: the run folder, as it is to be written.
        config: any configuration; keys that its preset has otherwise become ``--set`` entries.
        device: "" = its own choice.
    """
    if isinstance(config, FinetuneConfig):
        command = ["finetune", str(folder), *(["--task", config.task] if config.task != "segment" else [])]
        return _with_changes(command, finetune_config(config.task), config, FINETUNE_FLAGS, device)
    try:
        name, control = config.name.split("/")
        base = pretrain_config(name, control)
    except (ValueError, KeyError):
        name, control, base = "tiny", "mask3d", pretrain_config("tiny")
    command = ["pretrain", str(folder), "--preset", name, *(["--control", control] if control != "mask3d" else []),
               *(["--no-probe"] if config.init != "random" else [])]  # the lab's own views show what was kept
    flags = {"data": "--data", "init": "--init", "overfit": "--overfit", "fit.steps": "--steps",
             "fit.batch_size": "--batch-size"}
    return _with_changes(command, base, config, flags, device)


def _with_changes(command: list[str], base: Any, config: Any, flags: dict[str, str], device: str) -> list[str]:
    """The command with what differs from its recipe: as a flag where there is one, else under ``--set``."""
    before, after = flat(to_dict(base)), flat(to_dict(config))
    others = []
    for key, value in after.items():
        if before[key] == value:
            continue
        if key in flags:
            command += [flags[key], str(value)]
        else:
            others.append(f"{key}={json.dumps(value, separators=(',', ':'))}")
    return command + (["--device", device] if device else []) + (["--set", *others] if others else [])


def flat(values: dict, prefix: str = "") -> dict[str, Any]:
    """A nested configuration as one level of dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def data_of(frames: Any) -> str:
    """What ``--data`` is to say for these frames."""
    place = str(getattr(frames, "path", frames) or "rooms")
    if place == "rooms" or (Path(place) / "header.json").is_file():
        return place
    if Path(place).exists():
        raise Mask3DError("a prepared store", "a recording", f"Prepare it once: mask3d prepare auto {shlex.quote(place)} "
                          f"--out stores/{Path(place).name}, then pass that store.", place)
    raise Mask3DError("a prepared store", "nothing there", "Check the path.", place)


__all__ = ["command_of", "config_of", "data_of", "flat", "lesson_config"]
