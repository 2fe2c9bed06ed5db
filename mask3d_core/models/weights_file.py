"""A plain vision transformer's weights in a file of their own, as MAE, DINO, CLIP and many others give them away.

Spelled "timm:NAME@FILE": the architecture is timm's NAME, whose tag also says how colour is normalised
("vit_base_patch16_224.mae", "vit_small_patch16_224.dino"); the weights come from FILE. The names that other projects give their
weights are translated by timm's own filter.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor

from mask3d_core.errors import CheckpointError

LANDMARK = "patch_embed.proj.weight"  # whatever stands before it stands before all of an encoder's weights
PREFERRED = ("teacher", "target_encoder", "ema")  # of several encoders in a file: what DINO, I-JEPA and averaging projects use themselves
NAMED = 3  # weights that are named in a line


def load_weights_file(vit: VisionTransformer, file: str, name: str) -> dict[str, Any]:
    """Put a file's weights into an encoder; position codes and patches are brought to its size.

    Args:
        vit: of the architecture ``name``; every one of its weights must be in the file.
        file: .safetensors, or what ``torch.save`` wrote (only tensors and plain values are unpickled).
        name: for the messages.

    Returns:
        For the record: the file's name, its SHA-256 and what of it was left out (heads, decoders).

    Raises:
        CheckpointError: missing, unreadable, another architecture, or several encoders that cannot be told apart.
    """
    found = _of_one_encoder(_tensors(_read(file)), file)
    try:
        found = checkpoint_filter_fn(found, vit)
    except Exception as problem:  # timm's converters fail in their own ways
        raise CheckpointError(f"weights of {name}", f"others ({type(problem).__name__}: {str(problem)[:120]})",
                              "Name the architecture that the file was trained with.", file) from problem
    own = vit.state_dict()
    wrong = [f"{key} {tuple(found[key].shape)} for {tuple(own[key].shape)}" for key in own
             if key in found and found[key].shape != own[key].shape]
    missing = [key for key in own if key not in found]
    parts = {key.partition(".")[0] for key in own}
    more = [key for key in found if key not in own and key.partition(".")[0] in parts]
    faults = [f"{len(keys)} {words} ({', '.join(keys[:NAMED])}{', ...' if len(keys) > NAMED else ''})"
              for keys, words in ((missing, "missing"), (wrong, "of another shape"), (more, "more than it has")) if keys]
    if faults:
        raise CheckpointError(f"the {len(own)} weights of {name}", "; ".join(faults),
                              "Name the architecture that the file was trained with.", file)
    vit.load_state_dict({key: found[key] for key in own})
    left = sorted({key.partition(".")[0] for key in found if key not in own})
    return {"file": Path(file).name, "sha256": digest(file), "left_out": left}


def digest(file: str) -> str:
    """SHA-256 of a file, hexadecimal.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        with open(file, "rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as problem:
        raise CheckpointError("a file of weights", str(problem), "Put it back, or check its path.", file) from problem


def _read(file: str) -> dict[str, Any]:
    if not Path(file).is_file():
        raise CheckpointError("a file of weights", "a folder" if Path(file).is_dir() else "no such file", "Check the path after @.", file)
    try:
        if file.endswith(".safetensors"):
            return load_file(file)
        with open(file, "rb") as opened:
            first = opened.read(40)
        if not first.startswith((b"PK", b"\x80")):  # torch.save's two forms; a page or a Git LFS pointer may stand in their place
            raise ValueError(f"it begins with {first.decode('ascii', 'replace')!r}")
        with torch.serialization.safe_globals([argparse.Namespace]):  # MAE and DINO keep their command line beside the weights
            found = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, EOFError, RuntimeError, ValueError) as problem:
        raise CheckpointError("a readable file of weights", str(problem).strip().splitlines()[0][:160], "Copy or download it again.",
                              file) from problem
    except Exception as problem:  # pickle's errors, and whatever a damaged one makes of itself
        raise CheckpointError("tensors and plain values",
                              f"something else ({type(problem).__name__}), which could run code when it is loaded",
                              "Save its state_dict() alone, best as .safetensors.", file) from problem
    if not isinstance(found, dict):
        raise CheckpointError("weights by name", f"a {type(found).__name__}", "Save the state_dict() of the encoder.", file)
    return found


def _tensors(values: dict[Any, Any], before: str = "") -> dict[str, Tensor]:
    """All tensors in nested dictionaries, by their names joined with dots."""
    found: dict[str, Tensor] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= _tensors(value, f"{before}{key}.")
        elif isinstance(value, Tensor):
            found[f"{before}{key}"] = value
    return found


def _of_one_encoder(tensors: dict[str, Tensor], file: str) -> dict[str, Tensor]:
    """The weights of the one encoder that is meant, without what stands before their names."""
    places = sorted({key[:-len(LANDMARK)] for key in tensors if key.endswith(LANDMARK)})
    for word in PREFERRED:
        preferred = [place for place in places if word in place]
        if len(places) > 1 and len(preferred) == 1:
            places = preferred
    if not places:  # CLIP's names, for example, which timm translates
        return _without_wrapping(tensors)
    if len(places) > 1:
        raise CheckpointError("one encoder", f"several ({', '.join(place.rstrip('.') or 'unnamed' for place in places)})",
                              "Save the state_dict() of the one that is meant.", file)
    return {key[len(places[0]):]: value for key, value in tensors.items() if key.startswith(places[0])}


def _without_wrapping(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without a first word that all names share."""
    words = {key.partition(".")[0] for key in tensors}
    return {key.partition(".")[2]: value for key, value in tensors.items()} if words in ({"model"}, {"state_dict"}) else tensors


__all__ = ["digest", "load_weights_file"]
