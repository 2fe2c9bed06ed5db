"""The RGB encoder to timm and back: weights and the ``create_model`` arguments that load them strictly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from mask3d_core.errors import CheckpointError, ConfigError
from mask3d_core.models.mask3d import Mask3D
from mask3d_core.files import write_json
from mask3d_core.training.checkpoint import read_json, read_tensors, write_tensors


def create_model_arguments(model: Mask3D) -> dict[str, Any]:
    """What ``timm.create_model`` must be called with: name, image size, class token, pooling, colour mean and std."""
    config, vit = model.config, model.rgb_encoder
    data = {"mean": list(config.color_mean), "std": list(config.color_std), "input_size": [3, *config.image_size],
            "interpolation": "bilinear", "crop_pct": 1.0, "num_classes": 0}
    arguments = {"model_name": config.rgb.timm or "vit_tiny_patch16_224", "pretrained": False, "num_classes": 0,
                 "img_size": list(config.image_size), "pretrained_cfg_overlay": data}
    if not config.rgb.timm:
        arguments |= {"patch_size": config.patch, "embed_dim": config.rgb.width, "depth": config.rgb.depth,
                      "num_heads": config.rgb.heads, "class_token": vit.has_class_token,
                      "global_pool": vit.global_pool}
    return arguments


def export_timm(model: Mask3D, out: str | Path, record: dict[str, Any] | None = None) -> Path:
    """Write ``OUT.safetensors`` and ``OUT.json`` and check that they load strictly into a fresh timm model.

    Args:
        out: path without suffix.
        record: of the checkpoint; its provenance is kept in the JSON.

    Raises:
        ConfigError: the model has no RGB encoder.
        CheckpointError: the written files do not load (never seen; checked all the same).
    """
    if "rgb" not in model.config.inputs:
        raise ConfigError("this model has no RGB encoder (model.inputs has no rgb), so there is nothing to export")
    out = Path(out)
    out = out.with_suffix("") if out.suffix in (".safetensors", ".json") else out
    out.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(out.with_name(out.name + ".safetensors"), model.rgb_encoder.state_dict())
    kept = {k: v for k, v in (record or {}).items() if k in ("step", "frames_seen", "metrics", "data", "code_version")}
    write_json(out.with_name(out.name + ".json"), {
        "kind": "timm", "create_model": create_model_arguments(model), "trained_by": "mask3d-lab", "record": kept,
        "how": "model = timm.create_model(**create_model); model.load_state_dict(load_file('NAME.safetensors')); "
               "normalise colour with pretrained_cfg's mean and std; hide nothing"})
    load_timm(out)
    return out


def load_timm(path: str | Path) -> VisionTransformer:
    """Rebuild an exported encoder with timm alone, strictly.

    Raises:
        CheckpointError: files that are missing, damaged, or do not fit each other.
    """
    path = Path(path)
    path = path.with_suffix("") if path.suffix in (".safetensors", ".json") else path
    json_path = path.with_name(path.name + ".json")
    record = read_json(json_path)
    if record.get("kind") != "timm":
        raise CheckpointError("an exported timm encoder", f"kind {record.get('kind')!r}",
                              "Write one with `mask3d export CKPT --timm OUT`.", json_path)
    arguments = dict(record["create_model"])
    arguments["img_size"] = tuple(arguments["img_size"])
    vit = timm.create_model(**arguments)
    tensors = read_tensors(path.with_name(path.name + ".safetensors"))
    try:
        vit.load_state_dict(tensors, strict=True)
    except RuntimeError as problem:
        raise CheckpointError("weights that fit timm's model", str(problem).splitlines()[0],
                              "Export again.", path) from problem
    return vit.eval()


@torch.no_grad()
def encoder_features(model: Mask3D, color: torch.Tensor) -> torch.Tensor:
    """What the RGB encoder alone gives for whole pictures.

    Args:
        color: Float (b, 3, h, w), 0..1.

    Returns:
        (b, prefix + n, d), as ``timm``'s ``forward_features`` gives it.
    """
    from mask3d_core.models.encoders import encode_visible

    count = (color.shape[-2] // model.config.patch) * (color.shape[-1] // model.config.patch)
    ids = torch.arange(count, device=color.device).expand(color.shape[0], -1)
    return encode_visible(model.rgb_encoder, (color - model.color_mean) / model.color_std, ids)
