"""Where an RGB encoder comes from: noise, timm's weights, a checkpoint of ours, an exported or a fine-tuned encoder.

One spelling for every command: "random", "random:<timm name>", "timm:<timm name>", "timm:<timm name>@<file>", or the path of a
checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer

from mask3d_core.errors import CheckpointError, ConfigError
from mask3d_core.models.config import EncoderConfig, ModelConfig, split_name
from mask3d_core.models.encoders import build_vit
from mask3d_core.models.weights_file import load_weights_file
from mask3d_core.training.checkpoint import load_model, read_json, stem

COLOR_MEAN, COLOR_STD = ModelConfig.color_mean, ModelConfig.color_std


@dataclass(frozen=True)
class Start:
    """An RGB encoder with what a record must say of it.

    Args:
        vit: a plain timm VisionTransformer.
        color_mean, color_std: what its input is normalised with, red green blue, in units of 0..1.
        config: rebuilds the architecture with ``build_vit``.
        patch: side of a patch in pixels.
        record: where the weights come from, as plain JSON values; of a checkpoint also what it was trained on.
    """

    vit: VisionTransformer
    color_mean: tuple[float, float, float]
    color_std: tuple[float, float, float]
    config: EncoderConfig
    patch: int
    record: dict[str, Any]


def open_start(start: str, image_size: tuple[int, int] = (240, 320), patch: int = 16, seed: int = 0,
               shape: EncoderConfig | None = None) -> Start:
    """Build an RGB encoder with its weights.

    Args:
        start: "random" (of ``shape``), "random:<name>" (a timm architecture from noise), "timm:<name>" (with its
            weights, which need a network once), "timm:<name>@<file>" (weights from a file of anybody's), "CKPT" (a run
            folder or checkpoint of pre-training or fine-tuning, or an exported encoder), "step-zero:CKPT" (that
            checkpoint's architecture as its own training began).
        image_size: (height, width) in pixels; position codes are interpolated to it where they differ.
        patch: side of a patch; only where the start does not decide it.
        seed: of random weights.
        shape: the architecture of "random"; by default that of the preset "tiny".

    Raises:
        ConfigError: unknown architecture, weights out of reach, no RGB encoder in the checkpoint.
        CheckpointError: missing or damaged.
    """
    kind, _, name = start.partition(":")
    if start == "random" or (kind == "random" and name):
        return _random(EncoderConfig(timm=name) if name else shape or EncoderConfig(), image_size, patch, seed)
    if kind == "timm" and name:
        return _timm(name, image_size, patch)
    if kind == "step-zero" and name:
        return _step_zero(name)
    if not start or kind in ("random", "timm", "step-zero"):
        raise ConfigError("a start is random, random:<timm name>, timm:<timm name>, timm:<timm name>@<file>, step-zero:CKPT or a "
                          f"checkpoint; got {start!r}")
    return _checkpoint(start)


def _random(config: EncoderConfig, image_size: tuple[int, int], patch: int, seed: int) -> Start:
    mean, std = _colors_of_timm(config.timm) if config.timm else (COLOR_MEAN, COLOR_STD)
    patch = _patch_of_timm(config.timm) if config.timm else patch
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vit = build_vit(config, image_size, patch, 3)
    return Start(vit, mean, std, config, patch, {"start": f"random:{config.timm}" if config.timm else "random", "seed": seed})


def _timm(spelled: str, image_size: tuple[int, int], patch: int) -> Start:
    name, file = split_name(spelled)
    mean, std = _colors_of_timm(name)
    patch = _patch_of_timm(name)
    vit = build_vit(EncoderConfig(timm=name), image_size, patch, 3, pretrained=not file)
    weights = {"weights": load_weights_file(vit, file, name)} if file else {}
    label = f"{name}@{Path(file).name}" if file else name
    return Start(vit, mean, std, EncoderConfig(timm=name), patch, {"start": f"timm:{label}", **weights})


def _timm_settings(name: str):
    import timm

    try:
        return timm.get_pretrained_cfg(name, allow_unregistered=False) or timm.models.get_pretrained_cfg(name.split(".")[0])
    except Exception as problem:  # timm's own errors differ between versions
        raise ConfigError(f"timm does not know a model {name!r}: {str(problem)[:160]}") from problem


def _colors_of_timm(name: str) -> tuple[tuple, tuple]:
    settings = _timm_settings(name)
    if settings is None:
        raise ConfigError(f"timm does not know a model {name!r}; timm.list_models('vit*') names those it has")
    return tuple(settings.mean), tuple(settings.std)


def _patch_of_timm(name: str) -> int:
    """The patch size that a timm model's name says: vit_base_patch16_224 -> 16."""
    import re

    found = re.search(r"patch(\d+)", name)
    if not found:
        raise ConfigError(f"timm model {name!r}: only plain vision transformers with a patch size in their name (vit_*_patch16_224, "
                          "deit_*_patch16_224, ...) can be opened")
    return int(found[1])


def _step_zero(path: str) -> Start:
    from mask3d_core.training.pretraining import step_zero

    _, record = load_model(path)
    found = _of_mask3d(step_zero(record), path, {})
    return Start(found.vit, found.color_mean, found.color_std, found.config, found.patch,
                 {"start": f"step-zero:{Path(path).name}", "frames_seen": 0})


def _checkpoint(path: str) -> Start:
    record = read_json(stem(path).with_name(stem(path).name + ".json"))
    kind = record.get("kind")
    if kind == "mask3d":
        return _of_mask3d(*_with_name(load_model(path), path))
    if kind == "timm":
        from mask3d_core.models.export import load_timm

        vit = load_timm(path)
        made = record["create_model"]
        settings = made.get("pretrained_cfg_overlay", {})
        patch = vit.patch_embed.patch_size[0]
        is_ours = "embed_dim" in made  # else an architecture of timm's, which may have more than width, depth and heads
        config = EncoderConfig("" if is_ours else made["model_name"], vit.embed_dim, len(vit.blocks), vit.blocks[0].attn.num_heads)
        return Start(vit, tuple(settings.get("mean", COLOR_MEAN)), tuple(settings.get("std", COLOR_STD)), config, patch,
                     {"start": str(Path(path).name), "kind": kind, **record.get("record", {})})
    if kind in ("finetuned", "detector"):
        from mask3d_core.training.finetuned import load_finetuned

        model, record = load_finetuned(path)
        config = model.config.encoder
        return Start(model.encoder, model.config.color_mean, model.config.color_std, config, model.config.patch,
                     {"start": str(Path(path).name), "kind": kind, **_provenance(record)})
    raise CheckpointError("a checkpoint of mask3d-lab", f"kind {kind!r}", "This file was written by something else.", path)


def _with_name(loaded: tuple, path: str) -> tuple:
    model, record = loaded
    return model, path, record


def _of_mask3d(model, path: str, record: dict[str, Any]) -> Start:
    config = model.config
    if "rgb" not in config.inputs:
        raise ConfigError(f"{path} has no RGB encoder (model.inputs has no rgb), so there is nothing to start from")
    return Start(model.rgb_encoder, tuple(config.color_mean), tuple(config.color_std), config.rgb, config.patch,
                 {"start": str(Path(path).name), "kind": "mask3d", **_provenance(record)})


def _provenance(record: dict[str, Any]) -> dict[str, Any]:
    """What a record says of the frames that the weights have seen."""
    return {key: record[key] for key in ("step", "frames_seen", "data", "code_version") if key in record}
