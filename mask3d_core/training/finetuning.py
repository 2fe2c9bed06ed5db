"""From a FinetuneConfig to a finished run: data, encoder, head, task, engine. Used by the command and by notebooks."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.layers import DropPath
from torch import nn

from mask3d_core.batches import AugmentConfig, StoreBatches
from mask3d_core.errors import ConfigError
from mask3d_core.models.config import DepthTarget
from mask3d_core.models.dense import DenseConfig, DenseModel
from mask3d_core.models.detector import Detector, DetectorConfig
from mask3d_core.models.starts import Start, open_start
from mask3d_core.objects import mask_tools, thing_classes
from mask3d_core.store import Store
from mask3d_core.tasks.depth import Depth
from mask3d_core.tasks.detect import Detect
from mask3d_core.tasks.segment import Segment
from mask3d_core.training.checkpoint import latest_state
from mask3d_core.training.config import to_dict
from mask3d_core.training.finetune_config import FinetuneConfig
from mask3d_core.training.held_out import HeldOut, held_out, part_of, truth_words
from mask3d_core.training.loop import FitResult, fit, write_config
from mask3d_core.training.running import run_claimed
from mask3d_core.training.statistics import gather_statistics

STATISTICS_FRAMES = 256  # frames looked at for the depth's mean and spread
LABELS = {"segment": ("semantic",), "depth": (), "detect": ("semantic", "instance")}


def labelled_share(store: Store, indices: np.ndarray, share: float, seed: int) -> np.ndarray:
    """The training frames whose labels are used: whole sequences, drawn by a hash of their name and the seed.

    A smaller share lies within a larger one of the same seed, and the same names are drawn from any store.

    Args:
        share: of the sequences, 0..1; at least one is kept.

    Returns:
        int64, ascending.
    """
    names = {int(k): store.sequence(int(np.flatnonzero(store.sequence_index == k)[0]))
             for k in np.unique(store.sequence_index[indices])}
    order = sorted(names, key=lambda k: hashlib.sha256(f"{seed}/{names[k]}".encode()).digest())
    kept = order[:max(1, math.ceil(share * len(order) - 1e-9))]
    return indices[np.isin(store.sequence_index[indices], kept)]


def seen_frames(store: Store, indices: np.ndarray, record: dict[str, Any]) -> np.ndarray:
    """Which frames a start's own training saw, labelled or not; bool (k,).

    Args:
        record: of the start, as ``open_start`` gives it.
    """
    data = record.get("data", {})
    seen = store.is_seen(indices, data.get("sequences", []))
    source = store.first_source
    for live in data.get("rooms", []):
        if source.get("source") == "rooms" and all(source.get(k) == live.get(k) for k in ("seed", "pool")):
            seen[:] = True
    return seen


def build_dense(config: FinetuneConfig, start: Start, outputs: int) -> DenseModel:
    """Encoder and head: the head from the seed, the encoder's weights from the start.

    Raises:
        ConfigError: the training size is no multiple of the start's patch.
    """
    made = DenseConfig(start.config, config.image_size, start.patch, start.color_mean, start.color_std, outputs, config.head,
                       config.drop_path, config.depth.reference_focal if config.task == "depth" else 0.0)
    torch.manual_seed(config.fit.seed)
    return take_start(DenseModel(made), config, start)


def build_detector(config: FinetuneConfig, start: Start, class_names: Sequence[str]) -> Detector:
    """Encoder, pyramid and Mask R-CNN, as :func:`build_dense`.

    Raises:
        ConfigError: see ``DetectorConfig``; things that the data set does not have.
    """
    asked = config.detect
    made = DetectorConfig(start.config, config.image_size, start.patch, start.color_mean, start.color_std,
                          things=thing_classes(asked.things, class_names), width=asked.width, samples=asked.samples,
                          proposals=asked.proposals, min_score=asked.min_score, most=asked.most, drop_path=config.drop_path)
    torch.manual_seed(config.fit.seed)
    return take_start(Detector(made), config, start)


def take_start(model: nn.Module, config: FinetuneConfig, start: Start) -> Any:
    """The model with the start's weights in its encoder, frozen as the configuration says."""
    if not model.encoder.patch_embed.grid_size == start.vit.patch_embed.grid_size:
        start = replace(start, vit=_regridded(start, config))
    model.encoder.load_state_dict(start.vit.state_dict())
    freeze(model.encoder, config.freeze)
    return model


def _regridded(start: Start, config: FinetuneConfig) -> nn.Module:
    """The start with its position codes interpolated to the training grid."""
    from mask3d_core.models.encoders import build_vit, positions

    vit = build_vit(start.config, config.image_size, start.patch, 3)
    weights = dict(start.vit.state_dict())
    grid = vit.patch_embed.grid_size
    prefix, patches = positions(start.vit, grid)
    weights["pos_embed"] = (patches if prefix is None else torch.cat([prefix, patches], dim=1)).detach().clone()
    vit.load_state_dict(weights)
    return vit


def freeze(vit: nn.Module, blocks: int) -> None:
    """Stop the embedding and the first blocks from learning; -1 = the whole encoder, 0 = nothing. What is frozen leaves no
    block out by chance either: a head on top is to learn from the features that it will be asked with.

    Raises:
        ConfigError: more blocks than there are.
    """
    depth = len(vit.blocks)
    if blocks > depth:
        raise ConfigError(f"freeze must be at most the encoder's {depth} blocks (-1 = all of it); got {blocks}")
    if blocks == 0:
        return
    whole = blocks == -1
    for name, parameter in vit.named_parameters():
        parts = name.split(".")
        is_above = parts[0] == "blocks" and int(parts[1]) >= blocks or parts[0] in ("norm", "fc_norm")
        if whole or not is_above:
            parameter.requires_grad_(False)
    for block in vit.blocks if whole else vit.blocks[:blocks]:
        for module in block.modules():
            if isinstance(module, DropPath):
                module.drop_prob = 0.0


def prepared_data(config: FinetuneConfig, start: Start, device: torch.device, rank: int = 0, world: int = 1
                  ) -> tuple[Store, np.ndarray, StoreBatches, HeldOut | None, dict[str, Any]]:
    """The store, the labelled training frames, their batches, the validation frames, and what the record says of them.

    Raises:
        ConfigError: no frames to train on, labels that the store lacks, or validation or test frames that the start's own
            training saw.
    """
    labels = LABELS[config.task]
    store, train = part_of(config, "train")
    if not len(train):
        frames = len(part_of(config, "train", only_with_truth=False)[1])
        raise ConfigError(f"no pixel of the {frames} training frames of {store.path} {truth_words(config.task)}" if frames else
                          f"the store {store.path} has no training frames ({store.header.split_rule})")
    problems = []
    for name in ("val", "test"):
        other, frames = part_of(config, name)
        seen = seen_frames(other, frames, start.record)
        if seen.any():
            problems.append(f"{int(seen.sum())} of {len(seen)} {name} frames in {other.path} were in the start's own training data; a "
                            "score on them would say nothing. Use a start that has not seen them, or another store (recordings are "
                            "recognised by their names: give other ones of the same name another folder)")
        if len(frames) and config.task != "depth" and tuple(other.header.class_names) != tuple(store.header.class_names):
            problems.append(f"{other.path} has other classes than {store.path}")
    if problems:
        raise ConfigError(problems)
    used = labelled_share(store, train, config.label_fraction, config.label_seed)
    batches = StoreBatches(store, used, config.fit.batch_size, config.image_size, config.augment, config.fit.seed, device, rank,
                           world, labels)
    validation = None
    if len(part_of(config, "val")[1]):
        validation = held_out(config, "val", labels, config.eval_frames, config.fit.batch_size, device)
    elif config.select == "best":
        raise ConfigError("select=best needs validation frames, and the data has none; use select=last, or prepare it with some")
    record = {"kind": "store", "fingerprint": store.fingerprint, "source": store.header.source, "split_rule": store.header.split_rule,
              "frames": int(len(used)), "frames_in_split": int(len(train)), "rooms": [], "sequences": store.sequence_keys(used),
              "validation_frames": 0 if validation is None else len(validation)}
    return store, used, batches, validation, record


def build_task(config: FinetuneConfig, start: Start, store: Store, used: np.ndarray, validation: HeldOut | None,
               record: dict[str, Any]):
    """The task with its model.

    Raises:
        ConfigError: labels without class names.
    """
    if config.task == "depth":
        model = build_dense(config, start, 1)
        chosen = used[np.linspace(0, len(used) - 1, min(STATISTICS_FRAMES, len(used))).astype(int)]
        reader = StoreBatches(store, chosen, min(32, len(chosen)), config.image_size, AugmentConfig.none(), config.fit.seed,
                              is_whole=config.view == "whole")
        sample = [reader.frames(chosen[i:i + 32]) for i in range(0, len(chosen), 32)]
        statistics = gather_statistics(sample, DepthTarget(representation="log", reference_focal=config.depth.reference_focal))
        model.depth_mean.fill_(statistics.mean)
        model.depth_std.fill_(statistics.std)
        return Depth(config, model, validation, record, statistics.mean_map)
    if not store.header.class_names:
        raise ConfigError(f"the store {store.path} names no classes, so labels mean nothing; prepare it from a source with class names")
    if config.task == "detect":
        mask_tools()  # a missing evaluator is better known now than after the first hundred steps
        names = store.header.class_names
        return Detect(config, build_detector(config, start, names), validation, names, record)
    return Segment(config, build_dense(config, start, len(store.header.class_names)), validation, store.header.class_names, record)


def finetune(config: FinetuneConfig, run: str | Path, device: str | None = None, show: bool = True,
             on_preview: Callable | None = None, on_step: Callable | None = None, scored: str = "") -> FitResult:
    """Fine-tune: set up, then hand over to the engine. The same call resumes an interrupted run.

    Args:
        config: everything.
        run: the run folder.
        device: "cpu" or "cuda"; by default the GPU if there is one.
        show: progress bar and lines.
        on_preview, on_step: see :func:`mask3d_core.training.loop.fit`.
        scored: the part that will be scored afterwards, if it is known: it must have labels.

    Raises:
        ConfigError: an impossible configuration, all problems at once; sequences in two parts, labels that do not fit or are not
            there (:func:`mask3d_core.training.preflight.refuse_vain`); frames that the start has seen; the run folder holds
            another run, or another process trains into it.
    """
    from mask3d_core.training.preflight import refuse_vain

    config = config.validate()

    def train(place: torch.device, rank: int, world: int) -> FitResult:
        if latest_state(Path(run) / "state") is None:  # every process asks, so that all of them stop
            refuse_vain(config, scored)
        start = open_start(config.start, config.image_size, config.patch, config.fit.seed, config.shape)
        store, used, batches, validation, record = prepared_data(config, start, place, rank, world)
        if rank == 0:
            write_config(Path(run), to_dict(config))
        task = build_task(config, start, store, used, validation, {**record, **_with_start(record, start)})
        if validation is None and config.preview:  # frames that test are not for looking at while choices are still made
            task.shown = training_previews(config, store, used, place)
        return fit(task, batches, config.fit, run, place, show, on_preview, on_step)

    return run_claimed(config, run, device, train)


def training_previews(config: FinetuneConfig, store: Store, used: np.ndarray, device: torch.device) -> HeldOut:
    """Some labelled training frames, evenly spread and without augmentation."""
    few = used[np.unique(np.linspace(0, len(used) - 1, min(config.preview, len(used))).round().astype(int))]
    return HeldOut(store, few, config.image_size, LABELS[config.task], config.fit.batch_size, device, config.view)


def _with_start(record: dict[str, Any], start: Start) -> dict[str, Any]:
    """The record of a run's data with what its start had already seen: a later run must not be scored on that either."""
    seen = start.record.get("data", {})
    return {"start": {k: v for k, v in start.record.items() if k != "data"},
            "sequences": sorted(set(record["sequences"]) | set(seen.get("sequences", []))), "rooms": list(seen.get("rooms", []))}
