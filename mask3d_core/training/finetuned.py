"""Reading a fine-tuned model, whatever its task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mask3d_core.errors import CheckpointError
from mask3d_core.models.dense import DenseConfig, DenseModel
from mask3d_core.models.detector import Detector, DetectorConfig
from mask3d_core.training.checkpoint import KINDS, read_json, read_model, stem


def load_finetuned(path: str | Path) -> tuple[Any, dict[str, Any]]:
    """Rebuild a fine-tuned model from its two files, in evaluation mode on the CPU.

    Args:
        path: NAME, NAME.safetensors, NAME.json or a run folder: of one that selects on validation the ``best`` weights, as its scores
            are of them, else the ``latest``.

    Returns:
        The model (``DenseModel`` or ``Detector``) and its record; ``record["task"]`` says what it does.

    Raises:
        CheckpointError: missing, cut short, no fine-tuned model, or written by a newer version.
    """
    name = stem(path)
    json_path = name.with_name(name.name + ".json")
    latest = read_json(json_path)
    kind = latest.get("kind")
    if Path(path).is_dir() and latest.get("training", {}).get("select") == "best" and (name.with_name("best.json")).is_file():
        path, json_path = name.with_name("best"), name.with_name("best.json")
    if kind == DenseModel.kind:
        return read_model(path, kind, DenseConfig, DenseModel)
    if kind == Detector.kind:
        return read_model(path, kind, DetectorConfig, Detector)
    raise CheckpointError("a fine-tuned model", KINDS.get(kind, f"kind {kind!r}"),
                          "Make one with `mask3d finetune RUN --start CKPT --data STORE`.", json_path)
