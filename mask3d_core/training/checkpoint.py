"""Checkpoints: safetensors beside readable JSON. Nothing is unpickled, nothing half-written is ever found.

A *model* is ``NAME.safetensors`` + ``NAME.json``. A *training state* is a folder with model, optimiser and averaged
weights. Both are written under another name, flushed to disk, and renamed.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import mask3d_core
from mask3d_core.errors import CheckpointError, Mask3DError
from mask3d_core.files import write_json
from mask3d_core.models.config import ModelConfig
from mask3d_core.models.mask3d import Mask3D

FORMAT = 1
KINDS = {"mask3d": "mask3d checkpoint of pre-training", "finetuned": "fine-tuned dense model", "detector": "fine-tuned detector",
         "timm": "exported timm encoder"}


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write safetensors atomically.

    Raises:
        Mask3DError: the disk is full or not writable.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, temporary, metadata)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # safetensors makes it private; others may watch a run
        os.replace(temporary, path)
    except (OSError, SafetensorError) as problem:
        temporary.unlink(missing_ok=True)
        raise Mask3DError("a disk with room for the checkpoint", str(problem), "Free space and resume; "
                          "the states already saved are untouched.", path) from problem


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read safetensors.

    Raises:
        CheckpointError: missing or damaged; names the file.
    """
    try:
        return load_file(path)
    except FileNotFoundError:
        raise CheckpointError("a checkpoint file", "nothing there", "Check the path.", path) from None
    except (SafetensorError, OSError, ValueError) as problem:
        raise CheckpointError("a whole safetensors file", f"{problem}", "The file was cut short or is damaged; copy it "
                              "again or use an earlier one.", path) from problem


def read_json(path: Path) -> dict[str, Any]:
    """Read the JSON beside a checkpoint.

    Raises:
        CheckpointError: missing, damaged, or not an object.
    """
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        raise CheckpointError("the JSON beside the weights", "nothing there",
                              "Both files of a checkpoint belong together; copy the .json too.", path) from None
    except (OSError, ValueError) as problem:
        raise CheckpointError("readable JSON", str(problem), "Copy the file again.", path) from problem
    if not isinstance(values, dict):
        raise CheckpointError("a JSON object", type(values).__name__, "Copy the file again.", path)
    return values


def stem(path: str | Path) -> Path:
    """The checkpoint's name without its suffix: accepts NAME, NAME.safetensors, NAME.json, and a run folder."""
    path = Path(path)
    if path.is_dir():
        return path / "latest"
    return path.with_suffix("") if path.suffix in (".safetensors", ".json") else path


def save_model(path: str | Path, model: nn.Module, record: dict[str, Any], half: bool = False,
               weights: dict[str, Tensor] | None = None, extras: dict[str, Tensor] | None = None) -> Path:
    """Write a model with its record.

    Args:
        path: NAME (suffixes are added).
        model: a ``Mask3D``, or a fine-tuned model; its ``config`` rebuilds it and its ``kind`` says which it is.
        record: training config, data, step, metrics ...; model config, code version and hardware are added.
        half: store weights in half precision or less (loaded as float32 again).
        weights: other weights than the model's own (averaged ones).
        extras: tensors kept beside the weights under "extra." (the opponents' mean map).

    Returns:
        The name without suffix.
    """
    from mask3d_core.training.config import to_dict

    name = stem(path)
    name.parent.mkdir(parents=True, exist_ok=True)
    tensors = dict(model.state_dict() if weights is None else weights)
    if half:
        tensors = {k: _shrunk(k, t) for k, t in tensors.items()}
    tensors |= {f"extra.{k}": t for k, t in (extras or {}).items()}
    write_tensors(name.with_name(name.name + ".safetensors"), tensors, {"format": f"mask3d-{FORMAT}"})
    write_json(name.with_name(name.name + ".json"), {
        "format": FORMAT, "kind": getattr(model, "kind", "mask3d"), "code_version": mask3d_core.__version__, "torch": torch.__version__,
        "machine": platform.machine(), "model": to_dict(model.config), **record})
    return name


def _shrunk(name: str, tensor: Tensor) -> Tensor:
    """Half precision, but for scalars. The depth encoder's position codes do with a quarter: it is thrown away after
    pre-training, and in the shipped checkpoint this moves no predicted depth by more than a millionth on average."""
    if not tensor.is_floating_point() or tensor.numel() <= 16:
        return tensor
    return tensor.to(torch.float8_e4m3fn) if name == "depth_encoder.pos_embed" else tensor.half()


def load_model(path: str | Path) -> tuple[Mask3D, dict[str, Any]]:
    """Rebuild a model from its two files, in evaluation mode on the CPU.

    Returns:
        The model and its record; ``record["extras"]`` holds the tensors kept beside the weights.

    Raises:
        CheckpointError: missing, cut short, of another shape, or written by a newer version.
    """
    return read_model(path, "mask3d", ModelConfig, Mask3D)


def read_model(path: str | Path, kind: str, config: type, build: Callable[[Any], nn.Module]) -> tuple[Any, dict[str, Any]]:
    """Rebuild a model of a kind from its two files, in evaluation mode on the CPU.

    Args:
        path: NAME, NAME.safetensors, NAME.json or a run folder.
        kind: what the JSON must say that it is.
        config: dataclass of the JSON's "model".
        build: from that to the model.

    Returns:
        The model and its record; ``record["extras"]`` holds the tensors kept beside the weights.

    Raises:
        CheckpointError: missing, cut short, of another kind or shape, or written by a newer version.
    """
    from mask3d_core.training.config import from_dict

    name = stem(path)
    json_path, tensor_path = name.with_name(name.name + ".json"), name.with_name(name.name + ".safetensors")
    record = read_json(json_path)
    version = record.get("format")
    if record.get("kind") != kind or not isinstance(version, int):
        other = KINDS.get(record.get("kind")) if isinstance(version, int) else None
        raise CheckpointError(f"a {KINDS[kind]}", f"a {other}" if other else f"kind {record.get('kind')!r}, format {version!r}",
                              "Give the path of another checkpoint." if other else "This file was written by something else.", json_path)
    if version > FORMAT:
        raise CheckpointError(f"format {FORMAT} or older", f"format {version}",
                              "It was written by a newer mask3d-lab; update the package.", json_path)
    try:
        model = build(from_dict(config, record.get("model"), str(json_path)))
    except (TypeError, KeyError) as problem:
        raise CheckpointError("a model configuration", str(problem), "Copy the file again.", json_path) from problem
    tensors = read_tensors(tensor_path)
    record["extras"] = {k[6:]: tensors.pop(k).float() for k in list(tensors) if k.startswith("extra.")}
    load_weights(model, tensors, tensor_path)
    return model.eval(), record


def load_weights(model: nn.Module, tensors: dict[str, Tensor], where: Path | str) -> None:
    """Load weights strictly.

    Raises:
        CheckpointError: names or shapes differ; says which.
    """
    own = model.state_dict()
    missing, extra = sorted(set(own) - set(tensors)), sorted(set(tensors) - set(own))
    shapes = [f"{k}: {tuple(tensors[k].shape)} for {tuple(own[k].shape)}" for k in own
              if k in tensors and tensors[k].shape != own[k].shape]
    if missing or extra or shapes:
        words = [f"{label} {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}" for label, names in
                 (("missing", missing), ("unknown", extra), ("other shapes", shapes)) if names]
        raise CheckpointError("weights that fit the model", "; ".join(words),
                              "Use the JSON that was written with these weights.", where)
    model.load_state_dict({k: t.to(own[k].dtype) for k, t in tensors.items()})


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """AdamW's state by parameter name."""
    found = {}
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            for key, value in optimizer.state.get(parameter, {}).items():
                found[f"{name}|{key}"] = value if isinstance(value, Tensor) else torch.tensor(value)
    return found


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The inverse of :func:`optimizer_tensors`."""
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            keys = [k for k in tensors if k.startswith(f"{name}|")]
            if keys:
                # AdamW's step counters live where the fused kernel wants them; the moments beside the weights
                optimizer.state[parameter] = {k.split("|")[1]: tensors[k].to(parameter.device) for k in keys}


def save_state(folder: Path, step: int, parts: dict[str, dict[str, Tensor]], record: dict[str, Any], keep: int) -> Path:
    """Write a training state as one folder that appears whole or not at all; remove all but the newest ``keep``.

    A step that was saved before is not saved again: the same step of the same run is the same state.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final, temporary = folder / f"step-{step:09d}", folder / f".step-{step:09d}"
    if (final / "state.json").is_file():
        return final
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        for name, tensors in parts.items():
            if tensors:
                write_tensors(temporary / f"{name}.safetensors", tensors)
        write_json(temporary / "state.json", record)
    except OSError as problem:
        shutil.rmtree(temporary, ignore_errors=True)
        raise Mask3DError("a disk with room for the training state", str(problem),
                          "Free space and resume; earlier states are untouched.", folder) from problem
    shutil.rmtree(final, ignore_errors=True)
    os.replace(temporary, final)
    for old in sorted(folder.glob("step-*"))[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def latest_state(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest whole training state, or None."""
    for candidate in sorted(folder.glob("step-*"), reverse=True):
        if (candidate / "state.json").is_file():
            return candidate, read_json(candidate / "state.json")
    return None


def header_of(path: str | Path) -> list[str]:
    """Names of the tensors in a safetensors file, without reading them."""
    with safe_open(path, framework="pt") as file:
        return list(file.keys())
